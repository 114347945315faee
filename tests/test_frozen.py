"""Where frozen parts come from, and how a change in them is noticed."""

import hashlib
import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbridge import frozen
from mmbridge.errors import RecipeError
from mmbridge.frozen import content_hash, freeze, locate, reading, safetensors_in


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmbridge" / "hashes.json"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    folder = tmp_path / "part"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("path", ["./missing", "/missing", "missing", "a/b/c", "../x/y", "org/", "a b/c"])
def test_no_such_folder(path: str) -> None:
    with pytest.raises(RecipeError) as caught:
        locate(path)
    assert str(caught.value) == f"{path}: no such folder; give a folder, a hub id such as org/name, or world:NAME"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(RecipeError, match="expected a folder, found a file"):
        locate(str(tmp_path / "x"))


def test_parts_of_the_embedded_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(frozen, "find_spec", lambda name: Spec)
    with pytest.raises(RecipeError, match="world:clip: the embedded world has no part of that name; it has none"):
        locate("world:clip")
    (tmp_path / "weights" / "mae").mkdir(parents=True)
    (tmp_path / "weights" / "clip").mkdir()
    assert locate("world:clip") == tmp_path / "weights" / "clip"
    with pytest.raises(RecipeError, match="it has clip, mae"):
        locate("world:llm")
    with pytest.raises(RecipeError, match="it has clip, mae"):
        locate("world:../weights")


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    """In a process of its own: the hub client reads HF_HUB_OFFLINE when it is imported."""
    program = "from mmbridge.frozen import locate; locate('org/name', 'main')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "RecipeError: org/name: there is no such folder, and the hub gave nothing (" in last
    assert last.endswith("name a local folder, or try again with a network")


def test_the_hub_is_asked_for_no_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate("org/name", "v2") == tmp_path
    assert (asked["repo"], asked["revision"]) == ("org/name", "v2")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    wanted = {"model.safetensors", "config.json", "merges.txt", "tokenizer.model", "chat_template.jinja"}
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in wanted)
    pickles = {"pytorch_model.bin", "model.pt", "model.pth", "data.pkl", "flax_model.msgpack", "weights.npz", "x.py"}
    assert not any(fnmatch(name, pattern) for name in pickles for pattern in patterns)


def test_safetensors_only(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected weights in safetensors, found none"):
        safetensors_in(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"found only pytorch_model\.bin; pickles are never read"):
        safetensors_in(tmp_path)
    for name in ("b.safetensors", "a.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in safetensors_in(tmp_path)] == ["a.safetensors", "b.safetensors"]


def test_reading_says_it_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught, reading(tmp_path, "timm"):
        raise KeyError("first\nsecond")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RecipeError, match=r"^x: our own$"), reading(tmp_path, "timm"):
        raise RecipeError("x", "our own")


def test_the_hash_is_of_names_and_contents(part: Path, cache: Path) -> None:
    def of(contents: bytes) -> str:
        return hashlib.sha256(contents).hexdigest()

    lines = f"config.json\0{of(b'{}')}\nmodel.safetensors\0{of(b'weights')}\n"
    assert content_hash(part) == of(lines.encode())


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"),
        *("chat_template.jinja", "special_tokens_map.json", "preprocessor_config.json", "templates/tools.jinja"),
    ],
)
def test_what_changes_the_hash(part: Path, cache: Path, name: str) -> None:
    before = content_hash(part)
    (part / name).parent.mkdir(exist_ok=True)
    (part / name).write_bytes(b"changed")
    assert content_hash(part) != before


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "metrics.json", ".cache/x/config.json"])
def test_what_does_not(part: Path, cache: Path, name: str) -> None:
    before = content_hash(part)
    (part / name).parent.mkdir(parents=True, exist_ok=True)
    (part / name).write_bytes(b"added")
    assert content_hash(part) == before


def test_where_the_folder_lies_does_not_matter(part: Path, cache: Path, tmp_path: Path) -> None:
    before = content_hash(part)
    part.rename(tmp_path / "elsewhere")
    assert content_hash(tmp_path / "elsewhere") == before


def test_unchanged_files_are_not_read_again(part: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash(part)
    assert len(json.loads(cache.read_text())) == 2
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert content_hash(part) == before
    monkeypatch.undo()
    weights = part / "model.safetensors"
    weights.write_bytes(b"WEIGHTS")  # the same size
    os.utime(weights, ns=(1, 1))
    assert content_hash(part) != before


@pytest.mark.parametrize("broken", ["", "[]", "{", '{"x": 1}', '{"x": [1, 2]}', '{"x": ["a", 1, "b"]}'])
def test_a_broken_cache_is_no_hindrance(part: Path, cache: Path, broken: str) -> None:
    before = content_hash(part)
    cache.write_text(broken)
    assert content_hash(part) == before
    assert len(json.loads(cache.read_text())) == 2


def test_a_cache_that_cannot_be_written(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert content_hash(part) == content_hash(part)


def test_nothing_to_hash(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected weights and a configuration, found neither"):
        content_hash(tmp_path)


def test_freeze() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    assert freeze(module) is module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(module(torch.ones(1, 2)), module(torch.ones(1, 2)))


def test_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "huggingface_hub"}
    program = f"import sys, mmbridge.frozen; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
