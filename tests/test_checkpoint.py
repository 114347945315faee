"""Checkpoints on disk: whole or not there, and never believed unseen."""

import errno
import json
from pathlib import Path

import pytest
import torch

from mmbridge import checkpoint
from mmbridge.checkpoint import DamagedError, State, read, steps, write


def state(value: float = 1.0) -> State:
    tensors = {"a/weight": torch.full((2, 3), value), "a/step": torch.tensor(value), "turned": torch.ones(3, 2).T}
    return State(tensors, {"rates": [0.1 + 0.2, 1e-300], "best": None, "ids": ["ü", "b"]})


def same(one: State, other: State) -> bool:
    return one.values == other.values and all(
        torch.equal(each, other.tensors[key]) for key, each in one.tensors.items()
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3).bfloat16(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "none": torch.zeros(0, 4),
        "one": torch.tensor(2.5, dtype=torch.float64),
    }
    write(tmp_path, 7, State(tensors | dict(state().tensors), state().values), keep=1)
    found = read(tmp_path, 7)
    assert found.tensors.keys() == tensors.keys() | state().tensors.keys()
    assert same(State(tensors, state().values), found)
    assert all(found.tensors[name].dtype == each.dtype for name, each in tensors.items())
    assert same(state(), found)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 100_000_000 - 1):
        write(tmp_path, step, state(step), keep=2)
    assert steps(tmp_path) == [99_999_999, 10]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000010", "step-99999999"]
    write(tmp_path, 10, state(3.0), keep=2)
    assert same(read(tmp_path, 10), state(3.0))


def test_no_folder_has_no_checkpoints(tmp_path: Path) -> None:
    assert steps(tmp_path / "none") == []


def test_a_full_disk_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, state(), keep=1)

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2, state(2.0), keep=1)
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000001"]
    assert same(read(tmp_path, 1), state())


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["gone", "cut", "turned", "empty"])
def test_damage_is_noticed(name: str, harm: str, tmp_path: Path) -> None:
    write(tmp_path, 1, state(), keep=1)
    file = tmp_path / "step-00000001" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes({"cut": data[: len(data) // 3], "turned": data, "empty": b""}[harm]))
    with pytest.raises(DamagedError, match="step-00000001"):
        read(tmp_path, 1)


@pytest.mark.parametrize("manifest", [[], {}, {"state.json": {}}, "text", None])
def test_a_manifest_of_something_else_is_damage(manifest: object, tmp_path: Path) -> None:
    write(tmp_path, 1, state(), keep=1)
    (tmp_path / "step-00000001" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedError):
        read(tmp_path, 1)
