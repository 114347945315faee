"""The text the small language model is pretrained on: conversations, and not one picture.

Scenes are *described* in many styles and asked about; beside them stand sounds, motion, speech, numbers, everyday
knowledge and instructions, so that the model need not change when encoders for sound and video join. What a
description of a medium is here, perceptual tokens are later.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mmbridge.data.world import everyday, tongues
from mmbridge.data.world.language import CAPTION_PROMPTS, brief, caption, describe, describe_simply, listing
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
    if draw < 0.08:
        return _pick(random, *CAPTION_PROMPTS), caption(scene)
    if draw < 0.10:
        return _pick(random, "describe it briefly.", "in short, what is there?", "name the objects."), brief(scene)
    if draw < 0.12:
        return _pick(random, "list the objects.", "list what you see, one a line."), listing(scene)
    if draw < 0.22:
        one = pope(scene, random)[random.integers(2)]
        return one.question, one.answers[0]
    if draw < 0.28:
        return tongues.ask(scene, random)
    one = ask(scene, random)
    return _pick(random, *_POLITE).format(one.question), one.answers[0]


def _question(random: Random, most: int, style: Callable[[Scene, Random], str]) -> Turns:
    """A scene of at most ``most`` objects, described in a style, and one question."""
    scene = compose(random, novel=None)
    scene = Scene(scene.objects[: int(random.integers(1, most + 1))], scene.background)
    one = ask(scene, random)
    return [("user", f"{style(scene, random)}\n{one.question}"), ("assistant", one.answers[0])]


def caption_question(random: Random) -> Turns:
    """The caption of one or two objects, and one question."""
    return _question(random, 2, lambda scene, _: caption(scene))


def simple_question(random: Random) -> Turns:
    """A simple description of up to three objects, and one question."""
    return _question(random, 3, describe_simply)


def scene_talk(random: Random, turns: Sequence[int] = (1, 3, 6, 10)) -> Turns:
    """A described scene, then several instructions about it."""
    scene = compose(random, novel=None)
    told = describe(scene, random)
    said: Turns = []
    for turn in range(int(random.choice(turns))):
        question, answer = _about(scene, random)
        if turn == 0:
            question = f"{question}\n{told}" if random.random() < 0.08 else f"{told}\n{question}"
        said += [("user", question), ("assistant", answer)]
    return said


def scene_reply(random: Random) -> Turns:
    """A described scene and one or two instructions."""
    return scene_talk(random, (1, 2))


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


Mix = tuple[tuple[float, Callable[[Random], Turns]], ...]

_BESIDE: Mix = (
    (0.2, everyday.sounds),
    (0.2, everyday.motion),
    (0.2, everyday.speech),
    (0.2, everyday.numbers),
    (0.2, everyday.knowledge),
)

LESSONS: tuple[Mix, ...] = (
    ((1.0, caption_question),),
    ((0.9, simple_question), *((0.1 * share, told) for share, told in _BESIDE)),
    ((0.85, scene_reply), *((0.15 * share, told) for share, told in _BESIDE)),
    ((0.62, scene_talk), (0.03, scene_pair), *((0.35 * share, told) for share, told in _BESIDE)),
)
"""The corpus from easy to whole. To find in a description what a question names is learnt within minutes from short
texts, and hardly at all from long ones; once learnt it carries over."""


def talk(seed: int, index: int, *, lesson: int = -1, held_out: bool = False) -> Turns:
    """Conversation ``index`` of a lesson; ``held_out`` ones are never trained on. A pure function."""
    random = np.random.default_rng([7 + held_out, seed, index])
    mix = LESSONS[lesson]
    turns = mix[random.choice(len(mix), p=[share for share, _ in mix])][1](random)
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
