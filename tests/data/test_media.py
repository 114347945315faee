"""Media are opened in one place, and never decoded before their size is known."""

import io
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mmbridge.data.media import Limits, open_image, open_picture
from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError
from tests.data.pictures import encoded, header_only_png, noise


def image(source: bytes | Path | Image.Image) -> Image.Image:
    return open_image(Medium("image", source, "it.png"))


def pixel(source: bytes | Image.Image) -> tuple[int, ...]:
    found = image(source)
    assert found.mode == "RGB"
    return tuple(np.asarray(found)[0, 0].tolist())


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_as_they_were(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    assert np.array_equal(np.asarray(image(encoded(noise(), format, **options))), np.asarray(noise()))


def test_a_file_its_bytes_and_a_picture_in_memory_agree(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(noise(3)))
    for source in (file, file.read_bytes(), noise(3)):
        assert np.array_equal(np.asarray(image(source)), np.asarray(noise(3)))


def test_transparency_is_laid_over_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 51)))) == (255, 204, 204)
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 255)))) == (0, 0, 0)
    assert pixel(encoded(Image.new("RGB", (2, 2), (5, 6, 7)), transparency=(5, 6, 7))) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    lying = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert image(encoded(lying, "JPEG", exif=exif)).size == (2, 4)


def test_other_modes() -> None:
    assert pixel(encoded(Image.new("L", (2, 2), 7))) == (7, 7, 7)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    assert pixel(encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "TIFF")) == (255, 255, 255)
    assert pixel(encoded(Image.new("I;16", (2, 2), 0x7F00))) == (127, 127, 127)


def test_a_huge_png_is_refused_from_its_header() -> None:
    tracemalloc.start()
    with pytest.raises(MediaError, match=r"it.png: expected at most 80,000,000 pixels, found 400,000,000; scale"):
        image(header_only_png(20_000, 20_000))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(MediaError, match="found 81,000,000"):
        image(header_only_png(9_000, 9_000))
    with pytest.raises(MediaError, match="at most 60 pixels, found 64"):
        open_image(Medium("image", noise(side=8)), Limits(pixels=60))


@pytest.mark.parametrize("size", [(201, 1), (3, 700)])
def test_a_strip_is_refused_from_its_header(size: tuple[int, int]) -> None:
    line = rf"it.png: expected sides in a ratio of at most 200, found {size[0]}×{size[1]}; cut the image into parts"
    with pytest.raises(MediaError, match=line):
        image(header_only_png(*size))
    assert image(Image.new("RGB", (200, 1))).size == (200, 1)


def test_a_large_file_is_refused_undecoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(noise()))
    with pytest.raises(MediaError, match=r"a.png: expected at most 100 bytes, found more"):
        open_image(Medium("image", tmp_path / "a.png", "a.png"), Limits(bytes=100))


def test_what_is_no_image_says_so_in_one_line(tmp_path: Path) -> None:
    jpeg = encoded(noise(side=64), "JPEG")
    (tmp_path / "empty.png").touch()
    for source, line in (
        (tmp_path / "none.png", "expected an image, found no such file"),
        (tmp_path, "expected an image, found a folder"),
        (tmp_path / "empty.png", "expected an image, found an empty file"),
        (b"hello, I am text", r"expected an image \(PNG, .*\), found a file that begins with b'hello, I am '"),
        (jpeg[: len(jpeg) // 2], "expected a whole image, found a damaged one .*truncated"),
        (encoded(noise(side=64))[:5000], "expected a whole image, found a damaged one"),
    ):
        with pytest.raises(MediaError, match=f"^it.png: {line}") as caught:
            image(source)
        assert "\n" not in str(caught.value)


def test_postscript_is_never_handed_to_ghostscript() -> None:
    with pytest.raises(MediaError, match="expected an image"):
        image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")


def test_sound_is_no_image() -> None:
    with pytest.raises(MediaError, match=r"a.wav: expected an image, found audio"):
        open_image(Medium("audio", b"RIFF", "a.wav"))


def assert_alike(source: bytes | Path | Image.Image) -> bool:
    """``open_picture`` gives the pixels that Pillow gives, or the error; true where there are pixels."""
    medium = Medium("image", source, "it.jpg")
    try:
        wanted = open_image(medium)
    except MediaError as error:
        with pytest.raises(MediaError, match=f"^{re.escape(str(error))}$"):
            open_picture(medium)
        return False
    assert np.array_equal(np.asarray(open_picture(medium)), np.asarray(wanted))
    return True


JPEGS: list[dict[str, Any]] = [
    *({"subsampling": ratio, "quality": quality} for ratio in ("4:4:4", "4:2:2", "4:2:0") for quality in (10, 75, 97)),
    {"progressive": True},
    {"progressive": True, "subsampling": "4:4:4", "quality": 30},
    {"restart_marker_rows": 1},
    {"optimize": True, "comment": b"a comment", "icc_profile": b"no profile", "dpi": (72, 72)},
]


@pytest.mark.parametrize("options", JPEGS, ids=str)
def test_a_jpeg_is_decoded_without_pillow_to_the_same_bits(options: dict[str, Any]) -> None:
    for size in ((1, 1), (7, 5), (16, 17), (61, 130), (131, 8)):
        picture = noise(side=150).resize(size).resize((3 * size[0], 2 * size[1]))
        for mode in ("RGB", "L"):
            file = encoded(picture.convert(mode), "JPEG", **options)
            found = open_picture(Medium("image", file))
            assert isinstance(found, np.ndarray)
            assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))


def test_what_pillow_decodes_as_ever(tmp_path: Path) -> None:
    """Lying, in four inks, more pictures behind the first, in memory, in another format."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encoded(noise(side=20).resize((20, 9)), "JPEG", exif=exif))
    several = encoded(noise(1), "MPO", save_all=True, append_images=[noise(2)])
    for source in (
        tmp_path / "a.jpg",
        encoded(noise(side=20).convert("CMYK"), "JPEG"),
        several,
        noise(),
        Image.open(io.BytesIO(encoded(noise(), "JPEG"))),
        encoded(noise().convert("P"), "GIF"),
    ):
        assert isinstance(open_picture(Medium("image", source)), Image.Image)
        assert_alike(source)


def test_damaged_jpegs_are_pillows_to_judge(capfd: pytest.CaptureFixture[str]) -> None:
    """Cut off, changed, with bytes left out or behind: read as Pillow reads them or refused with its words."""
    random, read = np.random.default_rng(0), 0
    for round in range(400):
        options: dict[str, Any] = {"progressive": bool(round % 2), "restart_marker_rows": round % 3}
        file = bytearray(encoded(noise(round, 24 + round % 7), "JPEG", **options))
        at = int(random.integers(2, len(file)))
        match round % 4:
            case 0:
                del file[at:]
            case 1:
                file[at] ^= int(random.integers(1, 256))
            case 2:
                del file[at : at + 3]
            case _:
                file += b"more" * at
        read += assert_alike(bytes(file))
    assert 20 < read < 380
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_too_large_never_reaches_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given, **_: decoded.append(given))
    bomb = bytearray(encoded(noise(), "JPEG"))
    frame = bomb.index(b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = (20_000).to_bytes(2) * 2
    with pytest.raises(MediaError, match=r"expected at most 80,000,000 pixels, found 400,000,000; scale"):
        open_picture(Medium("image", bytes(bomb)))
    bomb[frame + 5 : frame + 9] = (1).to_bytes(2) + (201).to_bytes(2)
    with pytest.raises(MediaError, match="expected sides in a ratio of at most 200, found 201×1; cut"):
        open_picture(Medium("image", bytes(bomb)))
    with pytest.raises(MediaError, match="expected at most 100 bytes, found more"):
        open_picture(Medium("image", bytes(bomb)), Limits(bytes=100))
    assert not decoded
