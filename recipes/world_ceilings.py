"""What the shipped parts can do on their own: ``python -m mmbridge.recipes.world_ceilings``.

Two gates that stand before any bridge. Linear probes on each encoder's features read an object's shape, colour, size,
texture and place from the mean of the tokens on it, on scenes the probe was not fitted to; and the language model
answers held-out questions about described scenes. No bridge can be expected to do better, so the figures are written to
``ceilings.json`` beside the weights and printed next to every score on the embedded world.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mmbridge.data.world.render import render
from mmbridge.data.world.scene import Scene, sample_scene
from mmbridge.encoders.config import OpenCLIPConfig, TransformersConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.evaluation.probe import held_out_accuracy
from mmbridge.frozen import locate
from mmbridge.recipes.world_llm import text_accuracy
from mmbridge.recipes.world_pretraining import insides

ATTRIBUTES = {"shape": "shape", "colour": "colour", "size": "size", "texture": "texture", "position": "place"}
"""What is probed, under the name its kind of question has, and the attribute of an object that it is."""

GATED = ("shape", "colour", "size", "position")
PROBE_GATE, TEXT_GATE = 0.98, 0.97


def object_features(encoder: VisionEncoder, scenes: Sequence[Scene]) -> tuple[Tensor, list[int]]:
    """The mean (objects, D) of the tokens on each object, and which scene each object is in."""
    rows: list[Tensor] = []
    owners: list[int] = []
    for start in range(0, len(scenes), 128):
        part = scenes[start : start + 128]
        values = encoder.encode([encoder.prepare(render(scene)) for scene in part]).values.float()
        inside = insides(part, encoder.facts.grid.width).float()
        means = inside @ values / inside.sum(-1, keepdim=True).clamp(min=1)  # (scenes, 4, D)
        for offset, (scene, found) in enumerate(zip(part, means, strict=True)):
            rows += found[: len(scene.objects)]
            owners += [start + offset] * len(scene.objects)
    return torch.stack(rows), owners


def probe(encoder: VisionEncoder, scenes: Sequence[Scene]) -> dict[str, float]:
    """Held-out accuracy of a linear probe for each attribute."""
    features, owners = object_features(encoder, scenes)
    things = [thing for scene in scenes for thing in scene.objects]
    found = {}
    for name, attribute in ATTRIBUTES.items():
        values = [getattr(thing, attribute) for thing in things]
        order = sorted(set(values))
        labels = torch.tensor([order.index(value) for value in values])
        found[name] = round(float(held_out_accuracy(features, labels, scenes=owners).value), 4)
    return found


def measure(scenes: int = 6000, questions: int = 4000) -> dict[str, dict[str, float]]:
    """The ceilings of every shipped part, on scenes of the ``test`` split and on held-out text."""
    shown = [sample_scene("test", 100, index) for index in range(scenes)]
    folder = locate("world:llm")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    said = text_accuracy(model, tokenizer, questions, torch.device("cpu"))
    return {
        "clip": probe(OpenCLIPConfig(path="world:clip").build(), shown),
        "mae": probe(TransformersConfig(path="world:mae").build(), shown),
        "llm": {name: round(value, 4) for name, value in said.items()},
    }


def main() -> None:
    found = measure()
    path = Path(locate("world:llm")).parent / "ceilings.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    for attribute in GATED:
        if found["clip"][attribute] < PROBE_GATE:
            raise SystemExit(f"world:clip: {attribute} is read at {found['clip'][attribute]}, below {PROBE_GATE}")
    if found["llm"]["text_vqa"] < TEXT_GATE:
        raise SystemExit(f"world:llm: {found['llm']['text_vqa']} of text-only questions, below {TEXT_GATE}")


if __name__ == "__main__":
    main()
