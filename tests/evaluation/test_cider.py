"""CIDEr-D against pycocoevalcap's, caption by caption."""

import pytest
from pycocoevalcap.cider.cider import Cider

from mmbridge.evaluation.cider import cider
from tests.evaluation.test_bleu import corpus, joined


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocoevalcap(seed: int) -> None:
    candidates, references = corpus(seed, 60)
    said = {i: [text] for i, text in enumerate(joined(candidates))}
    right = {i: joined(texts) for i, texts in enumerate(references)}
    total, each = Cider().compute_score(right, said)
    ours = cider(candidates, references)
    assert ours.tolist() == pytest.approx(each.tolist(), abs=1e-9)
    assert ours.mean() == pytest.approx(total, abs=1e-9)


def test_the_truth_scores_ten_where_it_says_something() -> None:
    texts = [
        ["a", "red", "circle", "at", "the", "top"],
        ["one", "small", "blue", "star", "on", "black"],
        ["x", "y", "z", "w", "v", "u", "t"],
    ]
    assert cider(texts, [[text] for text in texts]).tolist() == pytest.approx([10, 10, 10])


def test_what_every_image_shows_weighs_nothing() -> None:
    same = ["there", "is", "a", "thing", "here"]
    assert cider([same, same], [[same], [same]]).tolist() == [0, 0]


def test_an_empty_caption_scores_zero() -> None:
    right = [["a", "red", "circle"], ["a", "blue", "star"]]
    assert cider([[], right[1]], [[right[0]], [right[1]]])[0] == 0
