"""The text the small language model is pretrained on: quizzes and conversations, and not one picture.

Scenes are *described* in many styles and asked about; beside them stand sounds, motion, speech, numbers, everyday
knowledge and instructions, so that the model need not change when encoders for sound and video join. What a
description of a medium is here, perceptual tokens are later.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mmbridge.data.world import everyday, tongues
from mmbridge.data.world.draw import Random, pick
from mmbridge.data.world.finding import find
from mmbridge.data.world.language import CAPTION_PROMPTS, brief, caption, describe, describe_simply, listing
from mmbridge.data.world.questions import KINDS, ask, pope
from mmbridge.data.world.quiz import Quiz, Turns, answered
from mmbridge.data.world.scene import Scene, compose

TALKS = 10
"""Conversations of a quiz about a scene."""

_POLITE = ("{}", "{}", "{}", "{}", "please: {}", "question: {}", "{} answer in a word or two.", "{} be short.")

_ASKED = (*KINDS, "position", "relation", "relation", "shape", "shape", "colour")
"""Kinds of question as often as they are asked: more of those that are learnt slowly, which are about places."""

_PLACES = ("position", "position", "relation", "shape", "colour")
"""Kinds of question that are about what is where."""


def _question(scene: Scene, random: Random, kinds: Sequence[str] = _ASKED) -> tuple[str, str]:
    """A question of ``questions.py``: one in eight as POPE asks, the others of these kinds."""
    if random.random() < 0.12:
        one = pope(scene, random)[random.integers(2)]
        return one.question, one.answers[0]
    one = ask(scene, random, pick(random, *kinds))
    return pick(random, *_POLITE).format(one.question), one.answers[0]


def _instruction(scene: Scene, random: Random) -> tuple[str, str]:
    """One instruction of any kind about a scene, and what to answer."""
    draw = random.random()
    if draw < 0.08:
        return pick(random, *CAPTION_PROMPTS), caption(scene)
    if draw < 0.10:
        return pick(random, "describe it briefly.", "in short, what is there?", "name the objects."), brief(scene)
    if draw < 0.12:
        return pick(random, "list the objects.", "list what you see, one a line."), listing(scene)
    if draw < 0.18:
        return tongues.ask(scene, random)
    if draw < 0.40:
        return find(scene, random)
    return _question(scene, random)


def _few(random: Random, most: int) -> Scene:
    """A scene of at most ``most`` objects."""
    scene = compose(random, novel=None)
    return Scene(scene.objects[: int(random.integers(1, most + 1))], scene.background)


def _finding(scene: Scene, told: str, random: Random, kinds: Sequence[str] = _ASKED) -> Quiz:
    """A scene to find things in, and to be asked about."""
    talks = (find(scene, random) if random.random() < 0.5 else _question(scene, random, kinds) for _ in range(TALKS))
    return Quiz(told, tuple(answered(*talk) for talk in talks))


def caption_quiz(random: Random) -> Quiz:
    """The caption of one or two objects."""
    scene = _few(random, 2)
    return _finding(scene, caption(scene), random)


def simple_quiz(random: Random) -> Quiz:
    """A simple description of up to three objects."""
    scene = _few(random, 3)
    return _finding(scene, describe_simply(scene, random), random)


def place_quiz(random: Random) -> Quiz:
    """A simple description of up to four objects, and mostly questions about what is where."""
    scene = _few(random, 4)
    return _finding(scene, describe_simply(scene, random), random, _PLACES)


def scene_quiz(random: Random) -> Quiz:
    """A scene described in any style, and instructions of every kind; of two scenes the fuller one: it teaches more."""
    scene = max((compose(random, novel=None) for _ in range(2)), key=lambda drawn: len(drawn.objects))
    return Quiz(describe(scene, random), tuple(answered(*_instruction(scene, random)) for _ in range(TALKS)))


def scene_talk(random: Random) -> Quiz:
    """A described scene and a conversation about it; at times the first question stands before the description."""
    scene = compose(random, novel=None)
    told = describe(scene, random)
    asked = [_instruction(scene, random) for _ in range(int(random.choice((2, 3, 4))))]
    if random.random() < 0.3:
        told, asked[0] = asked[0][0], (told, asked[0][1])
    talk: Turns = ()
    for one in asked:
        talk += answered(*one)
    return Quiz(told, (talk,))


def scene_pair(random: Random) -> Quiz:
    """Two described scenes and comparisons."""
    first, second = compose(random, novel=None), compose(random, novel=None)
    a, b = len(first.objects), len(second.objects)
    more = "the first" if a > b else "the second" if b > a else "neither"
    same = "yes" if first.background == second.background else "no"
    return Quiz(
        f"{describe(first, random)}\n{describe(second, random)}",
        (
            answered("which has more objects, the first or the second?", more),
            answered("do both have the same background?", same),
            answered("describe the first.", caption(first)),
            answered("describe the second.", caption(second)),
        ),
    )


Mix = tuple[tuple[float, Callable[[Random], Quiz]], ...]

_BESIDE: Mix = (
    (0.2, everyday.sounds),
    (0.2, everyday.motion),
    (0.2, everyday.speech),
    (0.2, everyday.numbers),
    (0.2, everyday.knowledge),
)

LESSONS: tuple[tuple[float, Mix], ...] = (
    (0.10, ((1.0, caption_quiz),)),
    (0.10, ((0.9, simple_quiz), *((0.1 * share, told) for share, told in _BESIDE))),
    (0.15, ((1.0, place_quiz),)),
    (0.65, ((0.60, scene_quiz), (0.07, scene_talk), (0.03, scene_pair), *((0.30 * s, told) for s, told in _BESIDE))),
)
"""The corpus from easy to whole, each lesson with its share of the training time. To find in a description what a
question names is learnt within minutes from short texts, and hardly at all from long ones; once learnt it carries
over."""


def _american(talk: Turns) -> Turns:
    """The user writes color and gray."""
    return tuple(
        (role, text.replace("colour", "color").replace("grey", "gray") if role == "user" else text)
        for role, text in talk
    )


def quiz(seed: int, index: int, *, lesson: int = -1, held_out: bool = False) -> Quiz:
    """Quiz ``index`` of a lesson; ``held_out`` ones are never trained on. A pure function."""
    random = np.random.default_rng([7 + held_out, seed, index])
    mix = LESSONS[lesson][1]
    drawn = mix[random.choice(len(mix), p=[share for share, _ in mix])][1](random)
    if random.random() < 0.03:
        return Quiz(drawn.told, tuple(_american(talk) for talk in drawn.talks))
    return drawn


def question_about_text(seed: int, index: int) -> tuple[str, str, tuple[str, ...], str]:
    """A held-out described scene with a question: (description, question, answers, kind). The text-only test set."""
    random = np.random.default_rng([9, seed, index])
    scene = compose(random, novel=None)
    one = ask(scene, random)
    return describe(scene, random), one.question, one.answers, one.kind
