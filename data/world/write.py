"""Writing a split of the embedded world in the public formats."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mmbridge.data.progress import waited_for
from mmbridge.data.record import Record
from mmbridge.data.world.source import WorldRecords
from mmbridge.data.writers import write_folder, write_shards


def write_world(
    folder: Path,
    split: str,
    seed: int,
    count: int,
    *,
    kind: Literal["images"] = "images",
    format: Literal["folder", "shards"] = "folder",
) -> None:
    """Renders ``count`` scenes into a ``metadata.jsonl`` folder or WebDataset shards, with all that is known of them.

    Raises:
        DataError: the split is unknown, or the folder is not empty or cannot be written.
    """
    scenes = WorldRecords(split, count, seed)

    def records() -> Iterator[Record]:
        for index in waited_for(range(count), "rendering", count):
            yield scenes[index]

    write = {"folder": write_folder, "shards": write_shards}[format]
    write(records(), folder)
