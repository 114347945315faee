"""Data sets of Hugging Face's ``datasets``, as ``Dataset.save_to_disk`` writes them; needs the extra ``hf``.

Rows are taken from the Arrow tables as they are stored: ``datasets`` decodes nothing, so that images are opened where
all others are, within their limits.
"""

from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbridge.data.arrow_records import AT_ONCE, MEDIA, ArrowRecords
from mmbridge.data.record import PARTS, Record
from mmbridge.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

STATE = "state.json"
"""What makes a folder a saved data set."""


class SavedRecords(ArrowRecords):
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
        held = array("i")
        for first in range(0, len(self), AT_ONCE):
            held.extend(self.held(self._rows[first : first + AT_ONCE], first, late))
        self.counts = np.asarray(held).reshape(-1, len(PARTS))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Record:
        return self.drawn(self._rows[[index]], index)

    def where(self, index: int) -> str:
        """Folder and index."""
        return f"{self._folder}:{index}"

    def name(self, index: int) -> str:
        return f"{self._folder.name}:{index}"

    def root(self, index: int) -> Path:
        return self._root


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
        if isinstance(inner, datasets.Image) and name not in MEDIA:
            raise DataError(folder, f"expected images in a column image or images, found {name}", "rename the column")
    return opened
