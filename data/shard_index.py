"""What a shard holds, from its tar headers alone: its samples, and where each member of theirs stands."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from webdataset.tariterators import base_plus_ext

from mmbridge.errors import DataError

IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm")
"""Extensions of the members that are read as images."""
_IMAGE = re.compile(rf"(?:(\d{{1,4}})\.)?(?:{'|'.join(IMAGES)})")
_COLUMNS, _TEXT, _FIRST_IMAGE = range(3)
_SLOTS = {"json": _COLUMNS, "txt": _TEXT}

Extent = tuple[int, int]
"""Offset in the shard and size of a member; size −1 where a sample has no such member."""
_NONE: Extent = (0, -1)


@dataclass(slots=True)
class Entry:
    """One sample: ``.json``, ``.txt`` and its images in order, or the ``fault`` that keeps it from being one."""

    key: str
    extents: list[Extent]
    fault: DataError | None = None

    @property
    def columns(self) -> Extent:
        return self.extents[_COLUMNS]

    @property
    def text(self) -> Extent:
        return self.extents[_TEXT]

    @property
    def images(self) -> list[Extent]:
        return self.extents[_FIRST_IMAGE:]


def entries(shard: Path, file: BufferedReader, largest: int) -> Iterator[Entry]:
    """Members grouped as WebDataset groups them: neighbours that agree up to the first dot of the base name.

    A fault in the tar ends it: the sample that was being read may lack members, and has the fault.

    Raises:
        DataError: not an uncompressed tar, or nothing in it that could be a sample.
    """
    group: _Group | None = None
    passed: set[str] = set()
    try:
        for header in _headers(shard, file):
            key, extension = base_plus_ext(header.name)
            slot = _slot(str(extension).lower())
            if key is None or slot is None or not header.isreg() or header.issparse():
                passed.add(f".{extension}" if extension else "names without extension")
                continue
            if group is None or key != group.key:
                if group is not None:
                    yield group.entry()
                group = _Group(key, f"{shard}:{key}")
            group.take(slot, header, str(extension), largest)
    except DataError as error:
        if group is None:
            raise
        group.fault = DataError(group.where, error.problem, error.fix)
    if group is None:
        found = f"only {', '.join(sorted(passed))}" if passed else "no members"
        raise DataError(shard, f"expected images with .json or .txt, found {found}")
    yield group.entry()


@dataclass(slots=True)
class _Group:
    """The members of one key, as they come."""

    key: str
    where: str
    members: dict[int, Extent] = field(default_factory=dict)
    fault: DataError | None = None

    def take(self, slot: int, header: tarfile.TarInfo, extension: str, largest: int) -> None:
        problem = None
        if header.size > largest:
            problem = f"expected members of at most {largest:,} bytes, found {header.name} of {header.size:,}"
        elif slot in self.members:
            problem = f"expected one .json, one .txt and one image or numbered ones, found another .{extension}"
        if problem and self.fault is None:
            self.fault = DataError(self.where, problem)
        self.members[slot] = (header.offset_data, header.size)

    def entry(self) -> Entry:
        images = sorted(slot for slot in self.members if slot >= _FIRST_IMAGE)
        numbers = [slot - _FIRST_IMAGE for slot in images]
        if numbers != list(range(len(numbers))) and self.fault is None:
            found = ", ".join(map(str, numbers))
            self.fault = DataError(self.where, f"expected images numbered 0, 1, 2 …, found {found}")
        return Entry(self.key, [self.members.get(slot, _NONE) for slot in (_COLUMNS, _TEXT, *images)], self.fault)


def _slot(extension: str) -> int | None:
    """What a member is for; ``0.jpg`` and ``jpg`` are both the first image."""
    image = _IMAGE.fullmatch(extension)
    return _SLOTS.get(extension) if image is None else _FIRST_IMAGE + int(image[1] or 0)


def _headers(shard: Path, file: BufferedReader) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (header := tar.next()) is not None:
                if header.size < 0:  # would send older Pythons round in circles (CVE-2025-8194)
                    raise tarfile.ReadError("negative size")
                yield header
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            # tarfile takes a damaged or missing header behind the first for the end: a whole tar marks its end
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark: it was cut off, or a header is damaged")
    except (tarfile.TarError, ValueError, EOFError) as error:  # damaged extended headers raise any of these
        raise DataError(shard, f"expected a whole, uncompressed tar, found a fault in it ({error})") from None
