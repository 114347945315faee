"""Data sets of Hugging Face's ``datasets``, as ``Dataset.save_to_disk`` writes them; needs the extra ``hf``.

Rows are taken from the Arrow tables as they are stored: ``datasets`` decodes nothing, so that images are opened where
all others are, within their limits.
"""

from array import array
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbridge.data.files import held_by
from mmbridge.data.record import PARTS, Record
from mmbridge.data.rows import named_media, read_record
from mmbridge.data.sample import Medium
from mmbridge.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

STATE = "state.json"
"""What makes a folder a saved data set."""
_MEDIA = ("image", "images")
_AT_ONCE = 1000


class SavedRecords:
    """The rows of a saved data set: the columns of ``rows``, with ``image`` or ``images`` of the feature ``Image``.

    To count what each holds, every row is read once, but for its images, which are only counted.

    Args:
        root: where images that are stored as paths start from.
        late: as for ``FileRecords``.

    Raises:
        DataError: ``datasets`` is not installed, the folder cannot be read by it, or, unless ``late``, a row is wrong;
            rows are called by folder and index, from 0 on.
    """

    def __init__(self, folder: Path, root: Path | None = None, *, late: bool = False) -> None:
        self._folder, self._root = folder, root or folder
        self._rows: Any = _opened(folder).with_format("arrow")
        words = [name for name in self._rows.column_names if name not in _MEDIA]
        held = array("i")
        for start in range(0, len(self), _AT_ONCE):
            table = self._rows[start : start + _AT_ONCE]
            rows, counts = table.select(words).to_pylist(), _counted(table)
            for index, row in enumerate(rows or [{} for _ in counts], start):
                media = [Medium("image", b"", self.where(index))] * counts[index - start]
                held.extend(held_by(partial(self._record, row, index, media), late))
        self.counts = np.asarray(held).reshape(-1, len(PARTS))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Record:
        (row,) = self._rows[[index]].to_pylist()
        return self._record(row, index, named_media(row, self._root, self.where(index)))

    def where(self, index: int) -> str:
        """Folder and index."""
        return f"{self._folder}:{index}"

    def _record(self, row: dict[str, Any], index: int, media: list[Medium]) -> Record:
        return read_record(row, f"{self._folder.name}:{index}", media, self._root, self.where(index))


def _opened(folder: Path) -> "Dataset":
    try:
        import datasets
    except ModuleNotFoundError:
        problem = "expected the package datasets, which reads this format, found none"
        raise DataError(folder, problem, "pip install 'mmbridge[hf]'") from None
    try:
        opened = datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged folders make it and Arrow raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(folder, f"expected a whole data set of datasets, found a fault in it ({reason})") from None
    assert isinstance(opened, datasets.Dataset)
    if not len(opened):
        raise DataError(folder, "expected rows, found none")
    for name, feature in opened.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image) and name not in _MEDIA:
            raise DataError(folder, f"expected images in a column image or images, found {name}", "rename the column")
    return opened


def _counted(table: Any) -> list[int]:
    """How many images each row of an Arrow table has, without touching their bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = [0] * len(table)
    for name in reversed(_MEDIA):  # where a row has both, image is the one that is read
        if name in table.column_names:
            column = table[name]
            one = pa.types.is_struct(column.type) or not pa.types.is_nested(column.type)
            held = pc.is_valid(column) if one else pc.list_value_length(column)
            given = pc.is_valid(column).to_pylist()
            counts = [
                int(many) if known else before
                for many, known, before in zip(held.to_pylist(), given, counts, strict=True)
            ]
    return counts
