"""CHAIR by hand, on the definitions of section 2 of the paper."""

import pytest

from mmbridge.evaluation.chair import chair


def test_shares_of_absent_mentions_and_of_captions_with_one() -> None:
    mentioned: list[list[str]] = [["dog", "cat"], ["dog"], ["cup", "fork", "cup"], []]
    present = [{"dog"}, {"dog"}, {"table"}, {"dog"}]
    instances, sentences = chair(mentioned, present)
    assert instances.value == pytest.approx(4 / 6)  # cat, cup, fork, cup of six mentions
    assert sentences.value == pytest.approx(2 / 4)


def test_a_set_counts_an_object_once_a_caption() -> None:
    instances, _ = chair([{"cup", "fork"}, {"dog"}], [{"fork"}, {"dog"}])
    assert instances.value == pytest.approx(1 / 3)


def test_saying_only_what_is_there_or_nothing_scores_zero() -> None:
    said: tuple[list[str], ...] = (["dog"], [])
    for mentioned in said:
        instances, sentences = chair([mentioned], [{"dog", "cat"}])
        assert instances.value == sentences.value == 0
