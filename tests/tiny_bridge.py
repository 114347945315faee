"""A tiny bridge in every part: random encoder and LLM, a folder of coloured squares, a recipe of one or two stages."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from mmbridge.recipe import Recipe
from tests.tiny import tiny_clip, tiny_llm

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "purple", "orange")


def tiny_data(folder: Path, count: int = 16, *, distinct: bool = False) -> Path:
    """A ``metadata.jsonl`` folder of ``count`` pictures of one colour each, with captions of unequal length. From the
    ninth on they come again, byte for byte, unless they are to be ``distinct``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        colour = COLOURS[index % len(COLOURS)]
        name = f"{index:03d}.png"
        picture = Image.new("RGB", (40, 32), colour)
        if distinct:
            picture.putpixel((index, 0), (index, 2 * index, 0))
        picture.save(folder / name)
        text = f"a {colour} square" + " and more of it" * (index % 3)
        rows.append({"file_name": name, "text": text, "questions": [{"question": "which?", "answers": [colour]}]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tiny_stage(name: str = "align", **changes: Any) -> dict[str, Any]:
    """A stage as a recipe file would have it."""
    return {
        "name": name,
        "script": "align",
        "train": ["connectors.*"],
        "objectives": [{"kind": "next_token"}],
        "data": {"mix": [{"kind": "files", "path": "DATA", "task": "caption"}]},
        "optim": {"lr": 1e-2},
        "batch": 4,
        "steps": 3,
    } | changes


def tiny_recipe(folder: Path, *stages: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe whose parts are made below ``folder`` (once); ``DATA`` in its stages stands for ``tiny_data``."""
    if not (folder / "llm").exists():
        tiny_clip(folder / "clip")
        tiny_llm(folder / "llm")
        tiny_data(folder / "data")
    raw = {
        "name": "tiny",
        "about": "a bridge for tests",
        "encoders": {"image": {"kind": "transformers", "path": str(folder / "clip")}},
        "connectors": {"image": {"encoders": ["image"], "projector": {"kind": "mlp", "depth": 2}}},
        "llm": {"path": str(folder / "llm")},
        "stages": list(stages or [tiny_stage()]),
        "engine": {"kind": "torch", "device": "cpu"},
        "log": {"tensorboard": False},
    } | changes
    return Recipe.model_validate(json.loads(json.dumps(raw).replace('"DATA"', json.dumps(str(folder / "data")))))
