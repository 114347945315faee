"""The ways of reading a source, their masks, and what a report says of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmbridge.alignment.report import AlignmentReport
from mmbridge.alignment.weights.activated import DEFINITIONS, STRIDE, Activated, activated, readings
from mmbridge.alignment.weights.iou import iou, iou_across_depth
from mmbridge.alignment.weights.masks import random
from mmbridge.bridge import Bridge
from mmbridge.data.formats import open_source
from mmbridge.data.record import CAPTION_PROMPTS
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.errors import DataError
from mmbridge.evaluation.report import Failure
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe

GROUPS = ("image", "text", "both")


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    """Of three blocks, so that two of them are two apart."""
    return Bridge(tiny_recipe(parts, llm={"path": str(tiny_llm(parts / "three", num_hidden_layers=3))}))


@pytest.fixture(scope="module")
def found(bridge: Bridge, parts: Path) -> Activated:
    return activated(bridge, open_source(parts / "data", task="caption"), samples=8, sparsity=0.5, batch_size=3)


class Given:
    """Samples in a list."""

    name = "given"

    def __init__(self, *samples: Sample) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def said(name: str, *media: Medium, asked: str = "What is it?") -> Sample:
    return Sample(name, conversation(("user", (*media, asked)), ("assistant", ("a red square",))))


def asked(name: str, *media: Medium) -> Sample:
    """Its answer is in its truth alone."""
    return Sample(name, conversation(("user", (*media, "What is it?"))), truth={"answers": ["blue, as known"]})


def picture() -> Medium:
    return Medium("image", Image.linear_gradient("L").convert("RGB"))


def test_each_way_of_reading_has_a_mask(bridge: Bridge, found: Activated) -> None:
    assert tuple(found.masks) == GROUPS
    for mask in found.masks.values():
        assert mask.sparsity == 0.5
    assert len({mask.about for mask in found.masks.values()}) == 3


def test_the_report_says_what_the_masks_say(found: Activated) -> None:
    masks = found.masks
    report = AlignmentReport("tiny", {}, DEFINITIONS, found.curves, matrices=found.matrices)
    curve = report.curve("iou", "image", "text")
    own = iou(masks["image"], masks["text"])
    assert curve.depths == (1, 2, 3)
    for depth, value in zip(curve.depths, curve.values, strict=True):
        assert value.value == pytest.approx(np.mean([each for name, each in own.items() if name[0] == str(depth - 1)]))
        assert value.low <= value.value <= value.high
    assert curve.mean.value == pytest.approx(np.mean([*own.values()]))
    assert curve.chance == pytest.approx((1 / 3,) * 3)
    assert len(curve.control) == 3
    across = report.curve("iou_across_depth", "both")
    assert across.depths == (1,)
    assert across.mean.value == pytest.approx(np.mean([*iou_across_depth(masks["both"], STRIDE).values()]))
    overall, *by_layer = found.matrices
    assert overall.rows == overall.columns == (*GROUPS, "magnitude", "random")
    assert overall.chance == pytest.approx(1 / 3)
    assert np.allclose(overall.values, np.transpose(overall.values))
    assert np.diag(overall.values).tolist() == [1.0] * 5
    assert overall.values[0][1] == pytest.approx(curve.mean.value)
    assert [each.of for each in by_layer] == [("image", "text"), ("image", "both"), ("text", "both")]
    place = by_layer[0].rows.index("mlp.down_proj"), by_layer[0].columns.index("block 2")
    assert by_layer[0].values[place[0]][place[1]] == own["1.mlp.down_proj"]
    assert {each.score for each in found.curves} == DEFINITIONS.keys()
    assert report.to_dict()["curves"][0]["of"] == ["image", "text"]


def test_batches_hold_what_is_read(bridge: Bridge, parts: Path) -> None:
    source = Given(said("none"), said("one", picture()), said("two", picture(), picture()), asked("three", picture()))
    failed: dict[int, Failure] = {}
    found = readings(bridge, source, samples=4, batch_size=4, failed=failed)
    assert {index: failure.id for index, failure in failed.items()} == {0: "none"}
    (image,), (text,), (both,) = (found[group] for group in GROUPS)
    tokens = sum(bridge.perceptual_tokens(bridge.collate()([source[1]]))[0])
    assert image.mask.sum(dim=1).tolist() == [tokens, 2 * tokens, tokens]
    assert image.perceptual.equal(image.mask)
    assert not text.perceptual.any()
    assert (both.mask.sum(dim=1) - text.mask.sum(dim=1)).tolist() == [tokens, 2 * tokens, tokens]
    assert torch.equal(both.embeds[1][both.perceptual[1]], image.embeds[1])
    for row, answer in ((1, "a red square"), (2, "blue, as known")):
        words = bridge.llm.tokenizer.decode(text.ids[row][text.mask[row]])
        assert answer in words
        assert "<image>" not in words


def test_samples_are_spread_over_the_source(bridge: Bridge) -> None:
    source = Given(*(said(f"{number}", picture()) for number in range(10)))
    contexts = readings(bridge, source, samples=4, batch_size=2)["both"]
    assert [name for context in contexts for name in context.samples] == ["0", "3", "6", "9"]
    assert len(readings(bridge, source, samples=99, batch_size=99)["both"][0].samples) == 10


def test_what_cannot_be_read_is_named(bridge: Bridge) -> None:
    with pytest.raises(DataError, match=r"^given: expected at least one sample, found none"):
        readings(bridge, Given(), 4, 4)
    with pytest.raises(DataError, match=r"^given: expected samples .* that can be used: a: expected a medium"):
        readings(bridge, Given(said("a")), 4, 4)
    failed: dict[int, Failure] = {}
    given = Given(said("a", picture()), said("b", picture(), asked="what " * 500), said("c", picture()))
    (both,) = readings(bridge, given, 4, 4, failed=failed)["both"]
    assert both.samples == ("a", "c")
    assert failed[1].error.startswith("sample b: expected at most")
    (both,) = readings(bridge, given, 4, 4, limit=1)["both"]
    assert both.samples == ("a",)


@pytest.mark.slow
def test_in_the_world_media_and_text_activate_the_same_weights_above_chance(tmp_path: Path) -> None:
    """With a connector that nothing has trained; the world's LLM has learnt, and random masks do not agree so."""
    raw = {"encoders": {"image": {"kind": "open_clip", "path": "world:clip", "tokens": "all"}}}
    bridge = Bridge(tiny_recipe(tmp_path, llm={"path": "world:llm"}, **raw))
    source = Given(
        *(
            Sample(
                f"{number}",
                conversation(
                    ("user", (Medium("image", Image.new("RGB", (64, 64), colour)), CAPTION_PROMPTS[0])),
                    ("assistant", (f"A large {colour} circle.",)),
                ),
            )
            for number, colour in enumerate(("red", "blue", "green", "yellow"))
        )
    )
    found = activated(bridge, source, samples=4, sparsity=0.5, batch_size=4)
    (curve,) = (each for each in found.curves if each.of == ("image", "text"))
    assert all(value.above(level) for value, level in zip(curve.values, curve.chance, strict=True))
    assert curve.mean.above(curve.chance[0] + 0.1)
    row = found.matrices[0].values[0]
    assert row[-1] == pytest.approx(1 / 3, abs=0.005)
    other = random(bridge.llm, 0.5, seed=7)
    assert math.isclose(np.mean([*iou(found.masks["text"], other).values()]), 1 / 3, abs_tol=0.005)
