"""A medium's key follows from its content and from nothing else."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbridge.data.media_key import KEY_DTYPE, among, key_of, keys_of
from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError
from tests.data.pictures import encoded, noise


def test_a_file_is_its_bytes(tmp_path: Path) -> None:
    data = encoded(noise(1))
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(data)
    keys = {key_of(Medium("image", source)) for source in (data, tmp_path / "a.png", tmp_path / "b.jpg")}
    assert keys == {hashlib.blake2b(data, digest_size=16, person=b"file").digest()}
    assert key_of(Medium("image", encoded(noise(2)))) not in keys


def test_a_picture_is_its_size_and_its_pixels() -> None:
    black = [Image.new("RGB", size) for size in ((4, 6), (6, 4), (3, 8))]
    assert len({key_of(Medium("image", each)) for each in black}) == 3
    picture = noise(3)
    key = key_of(Medium("image", picture, "a"))
    assert key_of(Medium("image", picture.copy(), "b")) == key
    assert key_of(Medium("image", picture.convert("RGBA"))) == key  # nothing transparent in it: the same when opened
    other = picture.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert key_of(Medium("image", other)) != key
    assert key_of(Medium("image", picture.tobytes())) != key


def test_vectors_are_their_shape_and_their_numbers(tmp_path: Path) -> None:
    """Wherever they lie: in memory, in a file of their own, or as a row of a table."""
    table = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.save(tmp_path / "table.npy", table)
    np.save(tmp_path / "one.npy", table[1])
    sources = (table[1], table[1:2].copy(), tmp_path / "one.npy", tmp_path / "table.npy#1")
    keys = {key_of(Medium("vector", source)) for source in sources}
    assert len(keys) == 1
    others = (table[2], table[1].reshape(2, 2), tmp_path / "table.npy#0")
    assert keys.isdisjoint(key_of(Medium("vector", source)) for source in others)
    with pytest.raises(MediaError, match=r"^row: expected a row from 0 to 2, found '3'"):
        key_of(Medium("vector", tmp_path / "table.npy#3", "row"))


def test_a_damaged_file_has_a_key_and_a_missing_one_has_not(tmp_path: Path) -> None:
    assert len(key_of(Medium("image", b"damaged"))) == 16
    with pytest.raises(MediaError, match=r"^gone: expected an image, found no such file"):
        key_of(Medium("image", tmp_path / "gone", "gone"))


def test_keys_that_end_in_zeros_are_told_apart() -> None:
    rows = np.zeros((4, 16), np.uint8)
    rows[1, 0], rows[2, :2], rows[3, 15] = 1, 1, 1
    keys = keys_of(rows)
    assert len(np.unique(keys)) == 4
    asked = keys_of(np.vstack([rows[[2, 0]], np.full((1, 16), 7, np.uint8)]))
    assert among(asked, np.sort(keys)).tolist() == [True, True, False]
    assert among(asked, np.empty(0, KEY_DTYPE)).tolist() == [False] * 3
