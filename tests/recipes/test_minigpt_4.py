"""MiniGPT-4's two variants: one linear map trains; the Q-Former stays as BLIP-2 has left it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import BlipImageProcessor

from mmbridge.bridge import Bridge
from mmbridge.connectors.base import Words
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.encoders.base import EncoderFacts, Grid
from mmbridge.recipe import Recipe
from tests.connectors.qformers import SMALL, blip2
from tests.recipes.test_blip_2 import trained

WIDTH = 160
"""Of the features of ``world:clip``."""
QFORMER: dict[str, Any] = {name: value for name, value in SMALL.items() if name != "text"} | {"kind": "qformer"}


@pytest.mark.parametrize(
    ("overrides", "prefix", "width", "tokens", "count"),
    [
        ([], 1, 4096, 32, 3_149_824),
        (["variant=13b"], 1, 5120, 32, 768 * 5120 + 5120),
        (["variant=llama-2"], 0, 4096, 64, 23_072_768),
    ],
    ids=["Vicuna 7B", "Vicuna 13B", "Llama-2 7B"],
)
def test_one_linear_map_trains(overrides: list[str], prefix: int, width: int, tokens: int, count: int) -> None:
    """In both stages: 768 numbers of a query, or 5632 of four patches, to the LLM's width."""
    recipe = Recipe.load("minigpt-4", *overrides)
    assert {stage.train for stage in recipe.stages} == {("connectors.image.projector.*",)}
    with torch.device("meta"):
        connector = recipe.connectors["image"].build([EncoderFacts(1408, Grid(1, 16, 16), prefix)], Words(width))
    found = trained(connector, recipe.stages[0].train)
    assert (connector.length(None), len(found), sum(found.values())) == (tokens, 2, count)


@torch.no_grad()
def test_queries_find_what_they_find_in_transformers(tmp_path: Path) -> None:
    """From pixels: the tower's last layer, CLS and patches, the norm behind it, the Q-Former of one checkpoint."""
    theirs = blip2(tmp_path)
    processor = BlipImageProcessor(size={"height": 28, "width": 28})
    processor.save_pretrained(tmp_path)
    recipe = Recipe.load(
        "minigpt-4",
        f"encoders.image.path={tmp_path}",
        "encoders.image.dtype=float32",
        f"connectors.image.resampler={QFORMER | {'init': str(tmp_path)}}",
        "llm.path=world:llm",
        "llm.dtype=float32",
    )
    bridge = Bridge(recipe)
    bridge.initialise()
    picture = Image.effect_mandelbrot((40, 32), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    batch = bridge.collate(training=False)([Sample("a", conversation(("user", [Medium("image", picture), "What?"])))])
    found = bridge.connectors["image"].get_submodule("resampler")(bridge.encode(batch)["image"])
    seen = theirs.vision_model(processor(images=picture, return_tensors="pt")["pixel_values"]).last_hidden_state
    assert seen.shape == (1, 5, 24)
    expected = theirs.qformer(query_embeds=theirs.query_tokens, encoder_hidden_states=seen).last_hidden_state
    assert_close(found.values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_q_former_stays_as_it_was_published(tmp_path: Path) -> None:
    """Both stages leave it as the checkpoint has it, dropout or not; the map moves in both."""
    theirs = blip2(tmp_path / "blip2", WIDTH).state_dict()
    resampler = QFORMER | {"init": str(tmp_path / "blip2")}
    recipe = Recipe.load(
        "minigpt-4",
        "variant=world",
        "engine.device=cpu",
        "stages.align.schedule.warmup=0",
        "stages.instruct.schedule.warmup=0",
        f"connectors.image.resampler={resampler}",
    )
    recipe.train(out=tmp_path / "run")
    align, instruct = (
        load_file(tmp_path / "run" / "stages" / name / "bridge.safetensors") for name in ("align", "instruct")
    )
    moved = {name for name in align if not torch.equal(align[name], instruct[name])}
    assert moved == {name for name in align if ".projector." in name}
    assert len(moved) == 2
    assert torch.equal(align["connectors.image.resampler.embeddings.queries"], theirs["query_tokens"][0])
    norm = theirs["vision_model.post_layernorm.weight"]
    assert torch.equal(align["connectors.image.resampler.feature_norm.weight"], norm)
    last = theirs["qformer.encoder.layer.3.output_query.dense.weight"]
    assert torch.equal(align["connectors.image.resampler.blocks.3.query_feed.down.weight"], last)


@pytest.mark.slow
def test_without_a_q_former_on_the_embedded_world(tmp_path: Path) -> None:
    recipe = Recipe.load("minigpt-4", "variant=world-llama-2", "engine.device=cpu")
    assert [stage.steps for stage in recipe.stages] == [2, 2]
    bridge = recipe.train(out=tmp_path)
    answer = bridge.caption(Image.new("RGB", (96, 64), "red"), max_new_tokens=3)
    assert answer.perceptual_tokens == 16  # 64 patches, four to one
