"""A tiny bridge with its engine, and batches written by hand, for tests of what a training step costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Message, Sample
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze
from tests.tiny import tiny_clip, tiny_llm
from tests.tiny_bridge import tiny_recipe, tiny_stage

LAYERS, WIDTH, HEADS, GROUPS, FEED, TOKENS = 2, 32, 32, 16, 48, 16
"""Of the tiny decoders with grouped queries: layers, d, H·dh, KV·dh, f; and perceptual tokens of an image."""

QUESTION, ANSWER = "What do you see?", "A large red circle."


def started(
    folder: Path,
    family: str = "llama",
    train: Sequence[str] = ("connectors.*",),
    *,
    layers: int = LAYERS,
    precision: str = "float32",
    resampler: dict[str, Any] | None = None,
    **llm: Any,
) -> TorchEngine:
    """An engine of a bridge whose parts are below ``folder``, made there the first time; ``llm`` goes to its section.

    The encoder is tapped before its last block.
    """
    if not (folder / "llm").exists():
        tiny_clip(folder / "clip")
        tiny_llm(folder / "llm", family, num_hidden_layers=layers)
    encoders = {"image": {"kind": "transformers", "path": str(folder / "clip"), "layer": -2}}
    connector = {"encoders": ["image"], "projector": {"kind": "mlp", "depth": 2}}
    recipe = tiny_recipe(
        folder,
        tiny_stage(train=[*train], precision=precision),
        encoders=encoders,
        connectors={"image": connector | ({"resampler": resampler} if resampler else {})},
        llm={"path": str(folder / "llm")} | llm,
    )
    bridge = Bridge(recipe)
    unfreeze(bridge, recipe.stages[0], "stages.align", parts=["connectors.", "llm."])
    return TorchEngine(bridge, recipe.stages[0], 1, "stages.align")


def image() -> Medium:
    """Each its own medium, though all look the same."""
    return Medium("image", Image.new("RGB", (40, 32), "red"), "red")


def sample(*question: str | Medium, answer: str = ANSWER) -> Sample:
    return Sample("talk", (Message("user", question), Message("assistant", (answer,))))


def batch_of(bridge: Bridge, *samples: Sample) -> Batch:
    return bridge.collate()(list(samples))
