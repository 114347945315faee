"""What make-world writes is what the world is, in both formats."""

import json
from pathlib import Path

import pytest

from mmbridge.data.formats import open_source
from mmbridge.data.media import open_image
from mmbridge.data.world.source import WorldSource
from mmbridge.data.world.write import write_world
from mmbridge.errors import DataError


@pytest.mark.parametrize("format", ["folder", "shards"])
@pytest.mark.parametrize("task", ["caption", "vqa", "pope"])
def test_a_written_world_reads_back_as_the_world(tmp_path: Path, format: str, task: str) -> None:
    write_world(tmp_path / "w", "combinations", 5, 6, format=format)  # type: ignore[arg-type]
    read = open_source(tmp_path / "w", task=task)  # type: ignore[arg-type]
    drawn = WorldSource("combinations", 6, 5, task)  # type: ignore[arg-type]
    assert len(read) == len(drawn)
    for index in range(len(drawn)):
        ours, theirs = drawn[index], read[index]
        for key in ("question", "answers", "kind", "caption", "references"):
            assert ours.truth.get(key) == theirs.truth.get(key), key
        assert {tuple(fact) for fact in ours.truth["facts"]} == {tuple(fact) for fact in theirs.truth["facts"]}
        assert open_image(ours.media[0]).tobytes() == open_image(theirs.media[0]).tobytes()


def test_the_folder_is_an_imagefolder(tmp_path: Path) -> None:
    write_world(tmp_path / "w", "test", 0, 3)
    rows = [json.loads(line) for line in (tmp_path / "w" / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["000000.png", "000001.png", "000002.png"]
    assert all((tmp_path / "w" / row["file_name"]).read_bytes()[:4] == b"\x89PNG" for row in rows)


def test_an_unknown_split_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split: expected one of"):
        write_world(tmp_path / "w", "tests", 0, 3)
    assert not (tmp_path / "w").exists()
