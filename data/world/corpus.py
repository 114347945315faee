"""The text the small language model is pretrained on: conversations, and not one picture.

Scenes are *described* in many styles and asked about; beside them stand sounds, motion, speech, numbers, everyday
knowledge and instructions, so that the model need not change when encoders for sound and video join. What a
description of a medium is here, perceptual tokens are later.
"""

from collections.abc import Callable

import numpy as np

from mmbridge.data.world import everyday, tongues
from mmbridge.data.world.language import CAPTION_PROMPTS, brief, caption, describe, listing
from mmbridge.data.world.questions import ask, pope
from mmbridge.data.world.scene import Scene, compose

Turns = list[tuple[str, str]]
"""(role, text) pairs, the user first."""

Random = np.random.Generator

_POLITE = ("{}", "{}", "{}", "{}", "please: {}", "question: {}", "{} answer in a word or two.", "{} be short.")


def _pick(random: Random, *choices: str) -> str:
    return choices[random.integers(len(choices))]


def _about(scene: Scene, random: Random) -> tuple[str, str]:
    """One instruction about a scene, and what to answer."""
    draw = random.random()
    if draw < 0.22:
        return _pick(random, *CAPTION_PROMPTS), caption(scene)
    if draw < 0.26:
        return _pick(random, "describe it briefly.", "in short, what is there?", "name the objects."), brief(scene)
    if draw < 0.30:
        return _pick(random, "list the objects.", "list what you see, one a line."), listing(scene)
    if draw < 0.40:
        one = pope(scene, random)[random.integers(2)]
        return one.question, one.answers[0]
    if draw < 0.46:
        return tongues.ask(scene, random)
    one = ask(scene, random)
    return _pick(random, *_POLITE).format(one.question), one.answers[0]


def scene_talk(random: Random) -> Turns:
    """A described scene, then several instructions about it."""
    scene = compose(random, novel=None)
    told = describe(scene, random)
    turns: Turns = []
    for turn in range(int(random.choice((1, 4, 8, 10)))):
        question, answer = _about(scene, random)
        if turn == 0:
            question = f"{question}\n{told}" if random.random() < 0.08 else f"{told}\n{question}"
        turns += [("user", question), ("assistant", answer)]
    return turns


def scene_pair(random: Random) -> Turns:
    """Two described scenes and a comparison."""
    first, second = compose(random, novel=None), compose(random, novel=None)
    told = f"{describe(first, random)}\n{describe(second, random)}\n"
    draw = random.integers(3)
    if draw == 0:
        a, b = len(first.objects), len(second.objects)
        answer = "the first" if a > b else "the second" if b > a else "neither"
        return [("user", told + "which has more objects, the first or the second?"), ("assistant", answer)]
    if draw == 1:
        which = random.integers(2)
        scene = (first, second)[which]
        return [("user", f"{told}describe the {('first', 'second')[which]}."), ("assistant", caption(scene))]
    same = first.background == second.background
    return [("user", told + "do both have the same background?"), ("assistant", "yes" if same else "no")]


_MIX: tuple[tuple[float, Callable[[Random], Turns]], ...] = (
    (0.64, scene_talk),
    (0.04, scene_pair),
    (0.07, everyday.sounds),
    (0.07, everyday.motion),
    (0.07, everyday.speech),
    (0.06, everyday.numbers),
    (0.05, everyday.knowledge),
)


def talk(seed: int, index: int, *, held_out: bool = False) -> Turns:
    """Conversation ``index`` of the corpus; ``held_out`` ones are never trained on. A pure function."""
    random = np.random.default_rng([7 + held_out, seed, index])
    kind = random.choice(len(_MIX), p=[share for share, _ in _MIX])
    turns = _MIX[kind][1](random)
    if random.random() < 0.03:
        turns = [
            (role, text.replace("colour", "color").replace("grey", "gray") if role == "user" else text)
            for role, text in turns
        ]
    return turns


def question_about_text(seed: int, index: int) -> tuple[str, str, tuple[str, ...], str]:
    """A held-out described scene with a question: (description, question, answers, kind). The text-only test set."""
    random = np.random.default_rng([9, seed, index])
    scene = compose(random, novel=None)
    one = ask(scene, random)
    return describe(scene, random), one.question, one.answers, one.kind
