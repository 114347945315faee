"""Which media a run will see: told apart by content, counted as they are drawn, in an order of their own."""

from pathlib import Path

import numpy as np
import pytest

from mmbridge.data.media_key import key_of
from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Record
from mmbridge.data.sample import Medium, Message
from mmbridge.data.sources import RecordSource
from mmbridge.data.survey import Reading, Seen, Survey, survey
from mmbridge.errors import MediaError
from tests.data.pictures import encoded, noise


def medium(number: int) -> Medium:
    return Medium("image", encoded(noise(number)), f"m{number}")


def captioned(*numbers: int) -> list[Record]:
    return [Record(f"r{n}", medium(n), f"caption {n}", references=(f"again {n}", f"once more {n}")) for n in numbers]


def reading(records: list[Record], draws: int | None = None, *, together: int = 1, skips: bool = False) -> Reading:
    mixture = Mixture([RecordSource(records, "all", together=together)], [1], 3)
    return Reading(mixture, len(mixture) if draws is None else draws, skips)


def assert_found(found: Survey, readings: list[Reading], numbers: list[int]) -> None:
    """The keys are those of these media, and each place leads to the medium of its key."""
    assert found.keys.tolist() == [key_of(medium(number)).rstrip(b"\0") for number in numbers]
    for key, (number, *place) in zip(found.keys.tolist(), found.places.tolist(), strict=True):
        assert key_of(readings[number].medium(*place)).rstrip(b"\0") == key


@pytest.mark.parametrize("workers", [0, 2])
def test_each_content_once_in_the_order_of_the_sources(workers: int) -> None:
    both = Record("talk", messages=(Message("user", (medium(7), "or", medium(1), "?")), Message("assistant", ("7",))))
    readings = [reading(captioned(5, 1, 1, 2)), reading([both, *captioned(5)]), reading(captioned(9, 8), draws=5)]
    found = survey(readings, "image", workers)
    assert_found(found, readings, [5, 1, 2, 7, 9, 8])
    assert found.seen == (Seen(4, 3), Seen(3, 3), Seen(5, 2))  # five draws of two: two epochs and a half
    assert found.bad == ()


def test_only_what_is_drawn() -> None:
    readings = [reading(captioned(*range(40)), draws=10)]
    found = survey(readings, "image")
    drawn = sorted({readings[0].mixture.locate(draw)[1] for draw in range(10)})
    assert_found(found, readings, drawn)
    assert found.seen == (Seen(10, 10),)


def test_a_medium_whose_texts_are_drawn_together_is_drawn_once() -> None:
    readings = [reading(captioned(1, 2), together=3)]
    found = survey(readings, "image")
    assert len(readings[0].mixture[0].others) == 2
    assert found.seen == (Seen(2, 2),)
    assert_found(found, readings, [1, 2])


def test_media_that_cannot_be_read(tmp_path: Path) -> None:
    gone = Record("gone", Medium("image", tmp_path / "gone.png", "gone.png"), "x")
    with pytest.raises(MediaError, match=r"gone.png: expected an image, found no such file"):
        survey([reading([gone, *captioned(1)])], "image")
    found = survey([reading([gone, *captioned(1)], skips=True)], "image")
    assert [bad.id for bad in found.bad] == ["gone"]
    assert found.seen == (Seen(1, 1),)


def test_text_alone_has_no_media() -> None:
    talk = Record("talk", messages=(Message("user", ("hello",)), Message("assistant", ("hi",))))
    found = survey([reading([talk])], "image")
    assert (len(found.keys), found.places.shape, found.seen) == (0, (0, 4), (Seen(0, 0),))
    assert survey([reading(captioned(1))], "audio").places.dtype == np.int64
