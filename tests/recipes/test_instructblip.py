"""InstructBLIP's stages: what trains, counted against transformers', and what an instruction changes after them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

from mmbridge.bridge import Bridge
from mmbridge.data.sample import Medium, Message, Sample
from mmbridge.recipe import Recipe
from tests.recipes.test_blip_2 import VIT_G, built, trained


@pytest.mark.parametrize(("overrides", "width"), [([], 4096), (["variant=13b"], 5120), (["variant=released"], 4096)])
def test_what_trains_is_transformers_q_former_and_a_map(overrides: list[str], width: int) -> None:
    """All of both in both stages, with the queries and the norm of features."""
    recipe = Recipe.load("instructblip", *overrides)
    with torch.device("meta"):
        theirs = InstructBlipQFormerModel(InstructBlipQFormerConfig(vocab_size=30523))
    expected = sum(each.numel() for each in theirs.parameters())
    expected += 32 * 768 + 2 * VIT_G.width + 768 * width + width
    connector = built(recipe.connectors["image"], width)
    for stage in recipe.stages:
        assert sum(trained(connector, stage.train).values()) == expected


def test_shares_are_square_roots() -> None:
    """Of sizes that stand beside them, or of the same set read the other way."""
    mix = Recipe.load("instructblip").stages[1].data.mix
    weights = {Path(each.path).stem: each.weight for each in mix if each.kind == "files"}
    sizes = {
        "coco-captions": 566_747,
        "web-capfilt": 14_000_000,
        "textcaps": 109_765,
        "vqav2": 443_757,
        "ok-vqa": 9_009,
        "a-okvqa": 17_056,
        "ocr-vqa": 801_579,
        "vqav2-questions": 443_757,
        "ok-vqa-questions": 9_009,
        "a-okvqa-questions": 17_056,
        "llava-detail-23k": 23_240,
        "llava-conversation-58k": 56_681,
        "llava-reasoning-77k": 76_643,
    }
    assert weights == {name: round(size**0.5) for name, size in sizes.items()}


@pytest.mark.slow
def test_the_instruction_reaches_the_queries_on_the_embedded_world(tmp_path: Path) -> None:
    Recipe.load("instructblip", "variant=world", "engine.device=cpu").train(out=tmp_path)
    bridge = Bridge.from_pretrained(tmp_path, device="cpu")
    medium = Medium("image", Image.new("RGB", (96, 64), "red"))
    samples = [Sample(text, (Message("user", (medium, text)),)) for text in ("What is it?", "How many are there?")]
    with torch.no_grad():
        (one,), (other,) = bridge.perceive(bridge.collate(training=False)(samples)).tokens
    assert one.shape == other.shape == (16, bridge.llm.width)
    assert not torch.allclose(one, other, atol=1e-3)
    assert bridge.ask(medium, "What is it?", max_new_tokens=3).perceptual_tokens == 16
