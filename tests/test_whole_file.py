"""A file is there whole, as before, or not at all."""

import os
from pathlib import Path

import pytest

from mmbridge.whole_file import write_whole, written_whole


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "old")
    with written_whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with written_whole(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    for before in ([], ["a.txt"]):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert os.listdir(tmp_path) == before
        write_whole(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """As devices are; nothing takes their place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "told")
    assert os.read(reading, 10) == b"told"
    os.close(reading)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_text_is_utf_8_whatever_the_machine_and_readable_to_others(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "桥\n\udcff")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.txt").read_bytes() == "桥\n?".encode()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode
