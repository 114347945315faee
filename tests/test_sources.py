"""Frozen sources: pinned, hashed, compared."""

from pathlib import Path

import pytest

from mmbridge.encoders import config as encoders
from mmbridge.errors import BridgeError
from mmbridge.llm import config as llm
from mmbridge.sources import check, resolved, sources, with_dtype
from tests.tiny_bridge import tiny_recipe


def test_hub_models_are_pinned_to_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = tmp_path / "snapshots" / "0123abcd"
    commit.mkdir(parents=True)
    (commit / "config.json").write_text("{}")
    for module in (encoders, llm):
        monkeypatch.setattr(module, "locate", lambda path, revision: commit if path == "org/name" else Path(path))
    recipe = resolved(tiny_recipe(tmp_path, llm={"path": "org/name", "revision": "main"}))
    assert (recipe.llm.path, recipe.llm.revision) == ("org/name", "0123abcd")
    assert recipe.encoders["image"].revision is None
    found = sources(recipe)
    assert (found["llm"]["path"], found["llm"]["revision"]) == ("org/name", "0123abcd")


def test_parts_of_the_world_are_never_named_by_path(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, llm={"path": "world:llm"})
    assert resolved(recipe).llm == recipe.llm


def test_what_has_changed_is_named(tmp_path: Path) -> None:
    now = sources(tiny_recipe(tmp_path))
    assert set(now) == {"llm", "encoders.image"}
    check(now, now)
    then = {name: dict(source) for name, source in now.items()}
    then["encoders.image"]["sha256"] = "0" * 64
    with pytest.raises(
        BridgeError, match=r"encoders\.image: .*clip has changed: expected contents 000000000000, found"
    ):
        check(now, then)


def test_another_number_format_is_every_part_s(tmp_path: Path) -> None:
    recipe = with_dtype(tiny_recipe(tmp_path), "bfloat16")
    assert (recipe.llm.dtype, recipe.encoders["image"].dtype) == ("bfloat16", "bfloat16")
