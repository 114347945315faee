"""Trees of samples that begin alike, against sequences compared token by token."""

import random

import numpy as np
import pytest

from mmbridge.data.sample import MediumKind
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.llm.reading import Reading, read
from mmbridge.llm.tree import Tree, trees

Said = list[tuple[int | tuple[MediumKind, int, int], bool]]
"""Tokens, or media as (kind, number, length), and whether they are supervised."""


def reading(said: Said, name: str = "s") -> Reading:
    placeholders = tuple(Placeholder(at, item[0]) for at, (item, _) in enumerate(said) if isinstance(item, tuple))
    media = [item for item, _ in said if isinstance(item, tuple)]
    ids = tuple(0 if isinstance(item, tuple) else item for item, _ in said)
    prompt = Prompt(name, ids, tuple(supervised for _, supervised in said), placeholders, "")
    return read(prompt, [length for _, _, length in media], [number for _, number, _ in media], 1000)


def talk(*question: int | tuple[MediumKind, int, int], answer: tuple[int, ...] = (8, 9)) -> Reading:
    return reading([*((item, False) for item in question), *((token, True) for token in answer)])


IMAGE: tuple[MediumKind, int, int] = ("image", 0, 3)


def test_answers_to_one_question_share_all_of_it() -> None:
    found = trees([talk(1, IMAGE, 2, answer=(8, 9)), talk(1, IMAGE, 2, answer=(8, 7, 6))])
    assert found == [Tree((0, 1), 0, 5, (1, 2))]  # nothing supervised is shared, nor is the last token read by anybody


def test_questions_share_what_they_begin_with() -> None:
    found = trees([talk(IMAGE, 1, 2, 3), talk(IMAGE, 1, 5)])
    assert found == [Tree((0, 1), 0, 4, (3, 2))]


def test_others_stand_alone() -> None:
    several = [
        talk(IMAGE, 1),
        talk(1, IMAGE),  # another beginning
        talk(("image", 1, 3), 1),  # another image
        talk(("audio", 0, 3), 1),  # another kind
        talk(1, 2),  # no medium
        talk(1, 2),
    ]
    assert [tree.members for tree in trees(several)] == [(number,) for number in range(len(several))]


def test_what_is_constant_is_left_out_where_a_sample_begins_with_it() -> None:
    both = [talk(1, 2, 3, IMAGE), talk(1, 2, IMAGE), talk(1, 2, 3, 4), reading([(1, False), (2, False), (3, True)])]
    assert trees(both, (1, 2)) == [
        Tree((0,), 2, 5, (0,)),
        Tree((1,), 2, 4, (0,)),
        Tree((2,), 2, 3, (0,)),
        Tree((3,), 0, 2, (0,)),  # its answer is predicted by a constant token, whose output is not at hand
    ]
    assert [tree.constant for tree in trees(both, (1, 2, 3))] == [3, 0, 3, 0]


def test_a_sample_that_predicts_nothing_has_no_tree() -> None:
    assert trees([reading([(1, True), (2, False)]), talk(1)]) == [Tree((1,), 0, 2, (0,))]


@pytest.mark.parametrize("seed", range(20))
def test_every_position_reads_its_own_sample_up_to_itself(seed: int) -> None:
    """Any samples, few tokens, so that many begin alike: a tree's positions spell out each sample again."""
    draw = random.Random(seed)
    samples: list[Reading] = []
    for _ in range(draw.randint(1, 8)):
        said: Said = [(draw.randrange(2), False) for _ in range(draw.randrange(3))]
        said += [(("image", draw.randrange(2), 2), False)] * draw.randrange(3)
        said += [(draw.randrange(2), draw.random() < 0.5) for _ in range(draw.randint(1, 5))]
        samples.append(reading(said))
    constant = tuple(draw.randrange(2) for _ in range(draw.randrange(3)))
    found = trees(samples, constant)
    members = sorted(member for tree in found for member in tree.members)
    assert members == [number for number, each in enumerate(samples) if each.length]
    for tree in found:
        codes: dict[int, int] = {}
        for member in tree.members:
            places = tree.places(member)
            assert len(places) == samples[member].length
            assert list(places[: tree.constant]) == list(range(-tree.constant, 0))
            assert tuple(samples[member].codes[: tree.constant]) == constant[: tree.constant]
            for place, code in zip(places[tree.constant :], samples[member].codes[tree.constant :], strict=False):
                assert codes.setdefault(int(place), int(code)) == code
                assert tree.depths()[place] == list(places).index(place)
            for depth, place in enumerate(places[tree.constant :], tree.constant):
                seen = np.flatnonzero(tree.reads()[place]) - tree.constant
                assert list(seen) == list(places[: depth + 1])
            assert (samples[member].predicting >= tree.constant).all()
        assert sorted(codes) == list(range(tree.length))
