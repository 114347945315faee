"""Features on disk: what is written is what is read, and what is stale, cut off or damaged is refused in one line."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmbridge.data.feature_shards import write_shard
from mmbridge.data.feature_store import FeatureStore, begin, finish, require_origin, shard_path
from mmbridge.encoders.base import Grid, Stored, Tiling
from mmbridge.errors import FeatureError

ORIGIN = {"path": "org/encoder", "revision": None, "layer": -1, "contents": "a" * 64, "pillow": "12.0"}


def key(number: int) -> bytes:
    """Some of them end in zeros."""
    return number.to_bytes(8, "little") + bytes(8)


def stored(number: int, dtype: torch.dtype = torch.float32) -> Stored:
    """One view of five tokens, or, of every third, a thumbnail and two tiles of unequal lengths."""
    lengths = (4, 3, 2) if number % 3 == 0 else (5,)
    values = torch.randn(sum(lengths), 4, generator=torch.Generator().manual_seed(number)).to(dtype)
    tiling = Tiling(1, 2, 30 + number, 40) if len(lengths) > 1 else None
    return Stored(values, lengths, tuple(Grid(1, length, 1) for length in lengths), tiling)


def assert_same(found: Stored | None, expected: Stored) -> None:
    assert found is not None
    assert found.values.dtype is expected.values.dtype
    assert torch.equal(found.values, expected.values)
    assert (found.lengths, found.grids, found.tiling) == (expected.lengths, expected.grids, expected.tiling)


def filled(folder: Path, *shards: range, dtype: torch.dtype = torch.float32) -> Path:
    begin(folder, ORIGIN, str(dtype).removeprefix("torch."))
    for number, each in enumerate(shards):
        write_shard(shard_path(folder, number), [key(n) for n in each], [stored(n, dtype) for n in each])
    finish(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    store = FeatureStore(filled(tmp_path / "f", range(7), range(7, 10), dtype=dtype))
    assert len(store) == 10
    for copy in (store, pickle.loads(pickle.dumps(store))):
        for number in reversed(range(10)):
            assert_same(copy.find(key(number)), stored(number, dtype))
        assert copy.find(key(10)) is None
        assert copy.find(b"\xff" * 16) is None


def test_a_shard_is_plain_safetensors_open_to_all_who_may_read_the_folder(tmp_path: Path) -> None:
    folder = filled(tmp_path / "f", range(3))
    tensors = load_file(shard_path(folder, 0))
    assert torch.equal(tensors["values"], torch.cat([stored(number).values for number in range(3)]))
    assert tensors["views"].tolist()[:3] == [[4, 1, 4, 1], [3, 1, 3, 1], [2, 1, 2, 1]]
    assert tensors["media"].tolist() == [[3, 1, 2, 30, 40], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert len(set(modes.values())) == 1
    assert set(modes) == {"features.json", "index.safetensors", "00000.safetensors"}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is mapped")
def test_values_and_index_are_memory_maps(tmp_path: Path) -> None:
    store = FeatureStore(filled(tmp_path / "f", range(50)))
    found = store.find(key(1))
    assert found is not None
    assert mapped(found.values.data_ptr()) == shard_path(tmp_path / "f", 0)
    assert mapped(store._keys.ctypes.data) == tmp_path / "f/index.safetensors"


def mapped(address: int) -> Path:
    """The file that this address of the process is mapped to."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split()
        start, stop = (int(each, 16) for each in span.split("-"))
        if start <= address < stop:
            return Path(path)
    raise AssertionError("no such address")


def test_a_folder_is_gone_on_with(tmp_path: Path) -> None:
    folder = filled(tmp_path / "f", range(4))
    (folder / "00001.partial").write_bytes(b"half a shard")
    known = begin(folder, ORIGIN, "float32")
    assert not (folder / "00001.partial").exists()
    assert known.tolist() == sorted(key(number).rstrip(b"\0") for number in range(4))
    write_shard(shard_path(folder, 1), [key(4)], [stored(4)])
    assert FeatureStore(folder).find(key(4)) is None  # not finished: the index knows only what was
    finish(folder)
    assert_same(FeatureStore(folder).find(key(4)), stored(4))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layer": -2}, "expected features of org/encoder with layer -2, found them made with layer -1; make"),
        ({"contents": "b" * 64}, "with contents bbbbbbbbbbbb, found them made with contents aaaaaaaaaaaa;"),
        ({"pillow": "13.0", "layer": (1, 2)}, r"with layer 1, 2, found .* layer -1 \(and 1 more that differ\);"),
        ({"path": "elsewhere", "revision": "main"}, None),
        ({"timm": "1.0"}, "with timm 1.0, found them made with timm None;"),
    ],
)
def test_what_is_stale_is_refused_by_name(tmp_path: Path, change: dict[str, Any], line: str | None) -> None:
    folder, now = filled(tmp_path / "image", range(2)), ORIGIN | change
    if line is None:
        require_origin(folder, now)
        return
    with pytest.raises(FeatureError, match=f"image: .*{line}"):
        require_origin(folder, now)
    with pytest.raises(FeatureError, match=r"--anew replaces them; or name another --out$"):
        begin(folder, now, "float32")
    assert len(FeatureStore(folder)) == 2
    assert len(begin(folder, now, "float32", anew=True)) == 0
    assert [path.name for path in folder.iterdir()] == ["features.json"]


def test_another_number_format_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="expected features in bfloat16, found them in float32; --anew"):
        begin(filled(tmp_path / "f", range(2)), ORIGIN, "bfloat16")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(FeatureError, match=r"expected an empty folder or features, found thesis.tex; name another"):
        begin(tmp_path / "other", ORIGIN, "bfloat16", anew=True)
    with pytest.raises(FeatureError, match="nowhere: expected features of org/encoder, found none of format 1; make"):
        require_origin(tmp_path / "nowhere", ORIGIN)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def last_value(path: Path) -> int:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return 8 + size + int(json.loads(data[8 : 8 + size])["values"]["data_offsets"][1]) - 1


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda path: cut(path), r"expected a shard of [\d,]+ bytes, found [\d,]+; remove it and run mmbridge data"),
        (lambda path: path.unlink(), "expected a shard of .* bytes, found none; run mmbridge data cache again"),
        (lambda path: flip(path, last_value(path)), "expected the features that were written, found others"),
        (lambda path: flip(path, 7), "expected a whole file of features, found none .*; remove it and run"),
    ],
    ids=["cut", "gone", "a bit of the values", "a bit of the header's length"],
)
def test_a_damaged_shard_is_one_line(tmp_path: Path, damage: Callable[[Path], None], line: str) -> None:
    folder = filled(tmp_path / "f", range(3), range(3, 6))
    damage(shard_path(folder, 1))
    with pytest.raises(FeatureError, match=line) as caught:
        FeatureStore(folder).find(key(5))
    assert "00001.safetensors" in caught.value.where
    assert "\n" not in str(caught.value)


def test_an_index_that_is_missing_or_damaged_is_one_line(tmp_path: Path) -> None:
    folder = filled(tmp_path / "f", range(3))
    cut(folder / "index.safetensors")
    with pytest.raises(FeatureError, match=r"index.safetensors: expected a whole file of features, found none"):
        FeatureStore(folder)
    (folder / "index.safetensors").unlink()
    with pytest.raises(FeatureError, match=r"expected finished features, found no index.safetensors; make them, or go"):
        FeatureStore(folder)
