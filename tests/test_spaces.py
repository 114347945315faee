"""Both spaces against transformers with the same weights, and which of them a bridge is given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmbridge.bridge import Bridge
from mmbridge.connectors.branch_tokens import padded
from mmbridge.connectors.text_heads import similarities
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.errors import DataError, RecipeError
from mmbridge.spaces import BranchSpace, LLMSpace, shown, space_of
from tests.connectors.qformers import blip2
from tests.objectives.test_pairs import QFORMER, TEXT, WORDS, recipe
from tests.tiny import tiny_llm
from tests.tiny_bridge import COLOURS, tiny_recipe, tiny_stage

SAID = ("a red square", "a blue one, it seems", "green", "yellow and nothing more than that")


class Seen(nn.Module):
    """In the place of a vision tower: what ours has seen."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, **_: Any) -> tuple[torch.Tensor]:
        return (self.values,)


def pictures(bridge: Bridge) -> Batch:
    media = [Medium("image", Image.new("RGB", (40, 32), colour), colour) for colour in COLOURS[:5]]
    return bridge.collate()([shown(medium.name, medium) for medium in media])


def test_a_text_branch_is_near_to_what_transformers_contrast_is(parts: Path, tmp_path: Path) -> None:
    theirs = blip2(tmp_path, 32, text=True, vocab_size=WORDS, max_position_embeddings=32)
    bridge = Bridge(recipe(parts, init=tmp_path))
    bridge.initialise()
    space, batch = space_of(bridge, "branch"), pictures(bridge)
    ids = [space.ids(text, "s") for text in SAID]
    media, texts = space.media(batch), space.texts(ids)
    assert (media.shape[1:], texts.shape[1:]) == (space.shape, space.shape[1:])
    theirs.vision_model = Seen(bridge.encode(batch)["image"].values)
    words, mask = padded(ids, torch.device("cpu"))
    with torch.no_grad():
        expected = theirs(
            pixel_values=torch.zeros(5, 3, 28, 28), input_ids=words, attention_mask=mask.long(),
            use_image_text_matching_head=False,
        )  # fmt: skip
    assert_close(similarities(media, texts), expected.logits_per_image, rtol=1e-5, atol=1e-6)
    assert expected.logits_per_image.std() > 0.01


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_the_llms_space_is_of_its_last_hidden_states(family: str, parts: Path, tmp_path: Path) -> None:
    # an OPT as the larger ones are: its head reads states after the last norm
    sizes = {"word_embed_proj_dim": 32, "do_layer_norm_before": True} if family == "opt" else {}
    folder = tiny_llm(tmp_path / "llm", family, **sizes)  # type: ignore[arg-type]
    bridge = Bridge(tiny_recipe(parts, llm={"path": str(folder)}))
    space = space_of(bridge)
    assert isinstance(space, LLMSpace)
    ids = [space.ids(text, "s") for text in SAID]
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    opening = words("")["input_ids"]
    for own, text in zip(ids, SAID, strict=True):
        assert text in words.decode(list(own))
    expected = []
    for own in ids:
        with torch.no_grad():
            output = model(torch.tensor([[*opening, *own]]), output_hidden_states=True)
        mean = output.hidden_states[-1][0, len(opening) :].mean(dim=0)
        expected.append(mean / mean.norm())
    assert_close(space.texts(ids), torch.stack(expected), rtol=1e-5, atol=1e-6)
    batch = pictures(bridge)
    with torch.no_grad():
        means = bridge.connectors["image"](bridge.encode(batch)["image"]).values.mean(dim=1)
    assert_close(space.media(batch)[:, 0], means / means.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_nothing_has_a_gradient_and_dropout_rests(parts: Path) -> None:
    bridge = Bridge(recipe(parts, resampler={"dropout": 0.5})).train()
    bridge.connectors.requires_grad_(True)
    bridge.train()
    for name in ("branch", "llm"):
        space, batch = space_of(bridge, name), pictures(bridge)
        ids = [space.ids("a red square", "s")]
        for first, second in ((space.media(batch), space.media(batch)), (space.texts(ids), space.texts(ids))):
            assert torch.equal(first, second)
            assert not first.requires_grad
    assert bridge.training


def chosen(parts: Path, *kinds: str, stage: str | None, init: str = "previous") -> Any:
    """The space of a bridge whose stages have one objective each, after one of them."""
    stages = [
        tiny_stage(f"s{number}", objectives=[{"kind": kind}], **({"init": init} if number else {}))
        for number, kind in enumerate(kinds)
    ]
    connector = {"encoders": ["image"], "resampler": QFORMER, "projector": {"kind": "linear"}}
    bridge = Bridge(tiny_recipe(parts, *stages, connectors={"image": connector}))
    bridge.stage = stage
    return space_of(bridge)


def test_the_text_branch_is_chosen_where_contrast_trained_it(parts: Path) -> None:
    assert isinstance(chosen(parts, "itc", stage=None), LLMSpace)
    assert isinstance(chosen(parts, "next_token", "itc", stage="s0"), LLMSpace)
    assert isinstance(chosen(parts, "itc", stage="elsewhere"), LLMSpace)
    assert isinstance(chosen(parts, "itm", stage="s0"), LLMSpace)
    assert isinstance(chosen(parts, "itc", "next_token", stage="s1", init="fresh"), LLMSpace)
    for stage in ("s0", "s1"):
        space = chosen(parts, "itc", "next_token", stage=stage)
        assert isinstance(space, BranchSpace)
        assert "connectors.image, trained by contrast in stage s0" in space.about


def test_a_space_that_is_not_there_is_refused(parts: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^connectors: expected one connector with a text branch .* found 0; compare"
    ):
        space_of(Bridge(tiny_recipe(parts)), "branch")
    two = {
        name: {"encoders": ["image"], "resampler": QFORMER | {"text": TEXT}, "projector": {"kind": "linear"}}
        for name in ("one", "two")
    }
    bridge = Bridge(tiny_recipe(parts, connectors=two))
    with pytest.raises(RecipeError, match="found 2; compare in the space llm"):
        space_of(bridge, "branch")
    assert isinstance(space_of(bridge), LLMSpace)
    assert "not trained by contrast here" in space_of(Bridge(recipe(parts)), "branch").about


@pytest.mark.parametrize("name", ["branch", "llm"])
def test_what_cannot_be_compared_is_said(name: Any, parts: Path) -> None:
    bridge = Bridge(recipe(parts))
    space = space_of(bridge, name)
    with pytest.raises(DataError, match=r"^sample s: expected a text, found none"):
        space.ids("  ", "s")
    alone = Sample("s", conversation(("user", ("What?",)), ("assistant", ("This.",))))
    with pytest.raises(DataError, match=r"^s: expected .*, found a sample without"):
        space.media(bridge.collate()([alone]))


def test_a_text_longer_than_the_llm_reads_is_said(parts: Path) -> None:
    bridge = Bridge(tiny_recipe(parts, llm={"path": str(parts / "llm"), "max_length": 20}))
    with pytest.raises(DataError, match=r"^sample s: expected a text of at most 20 tokens, found [0-9]+; shorten it"):
        space_of(bridge).ids("and on " * 30, "s")
