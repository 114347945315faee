"""Ceilings belong to the embedded world's parts, and to those a recipe uses."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmbridge.evaluation.ceilings import ceilings


def recipe(llm: str, **encoders: str) -> Any:
    parts = {name: SimpleNamespace(path=path) for name, path in encoders.items()}
    return SimpleNamespace(llm=SimpleNamespace(path=llm), encoders=parts)


def shipped(folder: Path) -> Path:
    file = folder / "ceilings.json"
    file.write_text(json.dumps({"llm": {"text_vqa": 0.98}, "clip": {"shape": 0.99}, "mae": {"shape": 0.97}}))
    return file


def test_world_parts_have_theirs_and_others_none(tmp_path: Path) -> None:
    file = shipped(tmp_path)
    assert ceilings(recipe("world:llm", vision="world:clip"), file) == {"llm.text_vqa": 0.98, "clip.shape": 0.99}
    assert ceilings(recipe("org/name", vision="world:mae"), file) == {"mae.shape": 0.97}
    assert ceilings(recipe("org/name", vision="org/clip"), file) == {}


def test_no_file_is_no_ceilings(tmp_path: Path) -> None:
    assert ceilings(recipe("world:llm"), tmp_path / "absent.json") == {}
