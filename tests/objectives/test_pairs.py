"""Contrast, matching and grounded generation against BLIP-2's losses written out over transformers' Q-Former."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.errors import RecipeError
from mmbridge.objectives import itm
from mmbridge.objectives.negatives import drawn
from mmbridge.objectives.pairs import Pairs
from mmbridge.objectives.run import BatchRun
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.recipe import Recipe
from tests.connectors.qformers import blip2
from tests.connectors.test_qformer import assert_same_gradients
from tests.objectives.blip2_losses import Blip2Losses
from tests.tiny_bridge import COLOURS, tiny_recipe, tiny_stage

WORDS = 486
SAID = ("a red square", "a blue one, it seems", "green", "yellow and nothing more than that", "white", "black it is")
TEXT = {"vocabulary": WORDS, "positions": 32, "length": 12, "shared": 8}
QFORMER: dict[str, Any] = {
    "kind": "qformer",
    "queries": 5,
    "width": 32,
    "layers": 4,
    "heads": 4,
    "feed_forward": 48,
    "dropout": 0.0,
    "normalise_features": False,
    "text": TEXT,
}
THREE = ("itc", "itm", "itg")


def recipe(parts: Path, objectives: Sequence[str] = THREE, init: Path | None = None, **changes: Any) -> Recipe:
    """A bridge whose Q-Former has a text branch over the words of the LLM's own tokenizer."""
    resampler = QFORMER | {"init": None if init is None else str(init)} | changes.pop("resampler", {})
    connector = {"encoders": ["image"], "resampler": resampler, "projector": {"kind": "linear"}}
    stage = tiny_stage(objectives=[{"kind": kind} for kind in objectives], **changes)
    return tiny_recipe(parts, stage, connectors={"image": connector})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("blip2")
    return folder, blip2(folder, 32, text=True, vocab_size=WORDS, max_position_embeddings=32)


@pytest.fixture
def bridge(parts: Path, checkpoint: tuple[Path, Any]) -> Bridge:
    made = Bridge(recipe(parts, init=checkpoint[0]))
    made.initialise()
    heads: Any = made.connectors["image"].get_submodule("resampler.heads")
    with torch.no_grad():
        for each in (heads.transform.weight, heads.transform.bias, heads.norm.weight, heads.bias):
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
        heads.temperature.fill_(0.4)
    return made


def picture(colour: str) -> Medium:
    return Medium("image", Image.new("RGB", (40, 32), colour), colour)


def samples(media: Sequence[int] = (0, 1, 2, 0, 3, 4)) -> list[Sample]:
    """Pairs, of which the first and the fourth show the same medium; among them one sample without any."""
    pictures = [picture(colour) for colour in COLOURS]
    shown = [(pictures[number], "What is it?") for number in media]
    found = [
        Sample(str(n), conversation(("user", asked), ("assistant", (said,))))
        for n, (asked, said) in enumerate(zip(shown, SAID, strict=False))
    ]
    alone = Sample("alone", conversation(("user", ("Say yes.",)), ("assistant", ("Yes.",))))
    return [*found[:2], alone, *found[2:]]


def reference(bridge: Bridge, theirs: Any, batch: Batch) -> Blip2Losses:
    """Over the same features and texts; what transformers' class lacks has the same numbers."""
    heads = dict(bridge.connectors["image"].get_submodule("resampler.heads").named_parameters())
    own = {name: each.detach().clone().requires_grad_() for name, each in heads.items()}
    shown = [number[0] for number in batch.media if number]
    values = bridge.encode(batch)["image"].values
    texts = [ids for ids, number in zip(batch.texts["image"], batch.media, strict=True) if number]
    theirs.zero_grad()
    return Blip2Losses(theirs, own, [values[number] for number in shown], texts, shown)


def negatives(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What is drawn from now on: other media, then other texts."""
    found: list[list[int]] = []

    def kept(near: Tensor, matching: Tensor) -> Tensor:
        numbers = drawn(near, matching)
        found.append(numbers.tolist())
        return numbers

    monkeypatch.setattr(itm, "drawn", kept)
    return found


@pytest.mark.proof("itc", against="BLIP-2's loss in loops over transformers' Q-Former, with gradients")
@pytest.mark.proof("itm", against="BLIP-2's loss in loops over transformers' Q-Former, with gradients")
@pytest.mark.proof("itg", against="BLIP-2's loss in loops over transformers' Q-Former, with gradients")
@pytest.mark.parametrize("kinds", [("itc",), ("itm",), ("itg",), THREE])
def test_losses_are_those_of_loops(
    kinds: tuple[str, ...], bridge: Bridge, checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, and together, when all share their passes."""
    batch, drew = bridge.collate()(samples()), negatives(monkeypatch)
    module = WeightedObjectives(bridge, [each for each in bridge.recipe.stages[0].objectives if each.kind in kinds])
    terms = module.terms([batch])
    expected_terms = {"itc": 6, "itm": 18, "itg": sum(len(batch.texts["image"][n]) - 1 for n in (0, 1, 3, 4, 5, 6))}
    assert dict(zip(kinds, terms, strict=True)) == {kind: expected_terms[kind] for kind in kinds}
    bridge.zero_grad()
    losses = module(batch, terms)
    torch.autograd.backward(losses.sum())
    loops = reference(bridge, checkpoint[1], batch)
    made = {
        "itc": lambda: loops.itc(),
        "itm": lambda: loops.itm(*drew),
        "itg": lambda: loops.itg(bridge.branches["image"].generate),
    }
    expected = [made[kind]() / count for kind, count in zip(kinds, terms, strict=True)]
    torch.autograd.backward(sum(expected, start=torch.zeros(())))
    assert_close(losses, torch.stack(expected), rtol=1e-5, atol=1e-6)
    count = assert_same_gradients(without_own_heads(bridge), checkpoint[1], [])
    theirs = [each.grad for each in checkpoint[1].parameters() if each.grad is not None]
    assert count >= sum(float(each.abs().max()) > 1e-6 for each in theirs) > 60  # some it computes for nobody
    heads = dict(bridge.connectors["image"].get_submodule("resampler.heads").named_parameters())
    for name in ("temperature", "transform.weight", "transform.bias", "norm.weight", "norm.bias", "bias"):
        own, other = heads[name].grad, loops.heads[name].grad
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            assert_close(own, other, rtol=1e-4, atol=1e-6)


def without_own_heads(bridge: Bridge) -> torch.nn.Module:
    """The Q-Former's parameters that transformers' class has as well."""
    missing = ("temperature", "transform", "norm", "bias")
    resampler = bridge.connectors["image"].get_submodule("resampler")
    named = [(name, each) for name, each in resampler.named_parameters()]
    kept = [each for name, each in named if not name.startswith(tuple(f"heads.{part}" for part in missing))]
    return torch.nn.ParameterList(kept)


def test_texts_about_the_same_medium_are_never_negatives(bridge: Bridge) -> None:
    matching = torch.eye(6, dtype=torch.bool)
    matching[0, 3] = matching[3, 0] = True
    near = torch.zeros(6, 6)
    near[0, 3], near[1, 4] = 50.0, 50.0
    torch.manual_seed(0)
    found = torch.stack([drawn(near, matching) for _ in range(2000)])
    assert not matching[torch.arange(6), found].any()
    assert (found[:, 1] == 4).all() or (found[:, 1] == 4).float().mean() > 0.99  # the nearest is drawn
    counts = torch.bincount(found[:, 2], minlength=6).float()
    assert counts[2] == 0
    assert ((counts[[0, 1, 3, 4, 5]] - 400).abs() < 5 * 400**0.5).all()  # equally near: equally often


def test_a_medium_is_read_once(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six pairs show five media; their keys and values are made once, for all three objectives."""
    resampler: Any = bridge.connectors["image"].get_submodule("resampler")
    rows, passes = [], []
    image, read = resampler.image, resampler.read

    def counted(values: Tensor, mask: Tensor) -> Any:
        rows.append(len(values))
        return image(values, mask)

    def told(reading: str, *arguments: Any, **named: Any) -> Any:
        passes.append(reading)
        return read(reading, *arguments, **named)

    monkeypatch.setattr(resampler, "image", counted)
    monkeypatch.setattr(resampler, "read", told)
    module, batch = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives), bridge.collate()(samples())
    module(batch, module.terms([batch]))
    assert rows == [5]
    assert sorted(passes) == ["both", "causal", "queries", "text"]


def test_the_llm_does_not_run(bridge: Bridge) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    bridge.llm.register_forward_pre_hook(never)
    module, batch = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives), bridge.collate()(samples())
    assert module(batch, module.terms([batch])).isfinite().all()


def test_what_is_padded_says_nothing(bridge: Bridge) -> None:
    """Alone or beside longer texts, a pair's text is the same direction."""

    def texts(chosen: Sequence[Sample]) -> Tensor:
        pairs = Pairs(BatchRun(bridge, bridge.collate()(chosen)), "image")
        return pairs.texts.detach()

    whole = texts(samples())
    alone = torch.cat([texts([each]) for each in samples() if each.media])
    assert_close(whole, alone, rtol=1e-5, atol=1e-6)


def test_one_medium_has_no_negatives(bridge: Bridge) -> None:
    module = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)
    batch = bridge.collate()(samples((0, 0)))
    assert module.terms([batch])[:2] == (2, 6)
    with torch.no_grad():
        _, matching, _ = module(batch, [1, 1, 1]).tolist()
        pairs = Pairs(BatchRun(bridge, batch), "image")
        queried = pairs.queried
        queries = queried.qformer.read("both", queried.image.of(queried.medium), pairs.ids, pairs.mask).queries
        assert queries is not None
        expected = -pairs.heads.matches(queries).log_softmax(1)[:, 1].sum()
    assert matching == pytest.approx(float(expected), rel=1e-5)


def test_nothing_to_see_is_worth_nothing(bridge: Bridge) -> None:
    module = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)
    alone = bridge.collate()([each for each in samples() if not each.media])
    for batch in (alone, bridge.nothing()):
        assert module.terms([batch]) == (0, 0, 0)
        losses = module(batch, [1, 1, 1])
        assert losses.tolist() == [0, 0, 0]
        torch.autograd.backward(losses.sum())


@pytest.mark.parametrize(
    ("connector", "line"),
    [
        (
            {"resampler": QFORMER | {"text": None}},
            "expected one connector with a text branch, found 0; give its resampler",
        ),
        (
            {"resampler": QFORMER | {"text": TEXT | {"shared": None}}},
            "expected one connector with a text branch, found 0",
        ),
        ({}, "expected one connector with a text branch, found 0"),
    ],
)
def test_an_objective_needs_a_text_branch(connector: dict[str, Any], line: str, parts: Path) -> None:
    stage = tiny_stage(objectives=[{"kind": "next_token"}, {"kind": "itc"}])
    plain: dict[str, Any] = {"encoders": ["image"], "projector": {"kind": "linear"}}
    bridge = Bridge(tiny_recipe(parts, stage, connectors={"image": plain | connector}))
    with pytest.raises(RecipeError, match=rf"^stages\.align\.objectives\.1\.connector: {line}"):
        WeightedObjectives(bridge, bridge.recipe.stages[0].objectives, "stages.align.objectives")


def test_words_and_tokenizer_agree(parts: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^connectors\.image\.resampler\.text\.vocabulary: expected 486, .* found 485"
    ):
        Bridge(recipe(parts, resampler={"text": TEXT | {"vocabulary": 485}}))
