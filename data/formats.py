"""Opening a data set by path: which format it is, told by looking."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmbridge.data.braces import expanded
from mmbridge.data.config import Format
from mmbridge.data.download import fetched
from mmbridge.data.files import FileRecords, Read, chat_record, folder_record, llava_record
from mmbridge.data.json_rows import Row
from mmbridge.data.parquet import ParquetRecords
from mmbridge.data.parquet_files import SUFFIX, names_parquet
from mmbridge.data.record import CAPTION_PROMPTS, Task
from mmbridge.data.saved_dataset import STATE, SavedRecords
from mmbridge.data.sources import DataSet, RecordSource
from mmbridge.errors import DataError
from mmbridge.llm.templates import TemplateName

METADATA = "metadata.jsonl"
_READ: dict[Format, Read] = {"folder": folder_record, "llava": llava_record, "chat": chat_record}
_COLUMNS: dict[str, Format] = {"messages": "chat", "conversations": "llava", "file_name": "folder"}
_SUPPORTED = (
    "WebDataset .tar shards, a folder with metadata.jsonl, LLaVA JSON, JSON lines with messages, a saved Dataset, or "
    "Parquet"
)


def open_source(
    path: str | Path,
    format: Format | None = None,
    media_root: str | Path | None = None,
    *,
    task: Task = "all",
    prompts: Sequence[str] = CAPTION_PROMPTS,
    turns: int = 1,
    together: int = 1,
    template: TemplateName | None = None,
    limit: int | None = None,
    late: bool = False,
) -> RecordSource:
    """The samples of a data set; arguments and errors as for ``open_records`` and ``RecordSource``.

    Raises:
        DataError: the data set cannot be read, or holds nothing for the task.
    """
    records = open_records(path, format, media_root, late=late)
    return RecordSource(
        records,
        task,
        prompts,
        str(path),
        counts=records.counts,
        turns=turns,
        together=together,
        template=template,
        limit=limit,
    )


def open_records(
    path: str | Path, format: Format | None = None, media_root: str | Path | None = None, *, late: bool = False
) -> DataSet:
    """The records of a data set.

    Args:
        path: a ``.tar`` or a brace pattern of them, a folder of them, a folder with ``metadata.jsonl``, a JSON file, or
            a folder that ``Dataset.save_to_disk`` wrote. Shards may also be named by an http or https URL, or a brace
            pattern of URLs: they are downloaded once, and read where they are kept. Or what ``parquet_files`` takes:
            those files are read in parts, where they are.
        format: told by looking when left out.
        media_root: the folder media paths start from and may not leave; the data file's own when left out.
        late: rows that cannot be read are errors when they are used, and not when the data set is opened.

    Raises:
        DataError: naming the file, and the line where there is one: nothing there, an unknown format, anything
            malformed, a file that cannot be downloaded or read.
    """
    root = None if media_root is None else Path(media_root)
    try:
        kind, files = _told(str(path), format)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None
    if kind == "webdataset":
        from mmbridge.data.shards import ShardRecords  # brings webdataset, and with it torch

        return ShardRecords(files, root, late=late)
    if kind == "datasets":
        return SavedRecords(files[0], root, late=late)
    if kind == "parquet":
        return ParquetRecords(str(path), root, late=late)
    return FileRecords(files[0], root or files[0].parent, _READ[kind], late=late)


def _told(path: str, format: Format | None) -> tuple[Format, list[Path]]:
    """The format, and its files."""
    if not path:
        raise DataError("''", "expected a data set, found an empty name")
    place = Path(path)
    if place.is_dir():
        return _told_folder(place, format)
    if format == "parquet" or (format is None and names_parquet(path)):
        return "parquet", []  # found where they are, which may be elsewhere
    if place.exists():
        if format == "datasets":
            raise DataError(place, "expected the folder of a saved Dataset, found a file")
        return format or _told_file(place), [place]
    if path.startswith("pipe:") or "://" in path:
        return "webdataset", fetched(expanded(path))
    if "{" in path:
        return "webdataset", [Path(shard) for shard in expanded(path)]
    raise DataError(path, "expected a data set, found no such file or folder")


def _told_folder(folder: Path, format: Format | None) -> tuple[Format, list[Path]]:
    shards, metadata = sorted(folder.glob("*.tar")), folder / METADATA
    if shards and metadata.exists() and format is None:
        raise DataError(folder, "expected shards or metadata.jsonl, found both", "say the format")
    if shards and format in (None, "webdataset"):
        return "webdataset", shards
    if metadata.exists() and format in (None, "folder"):
        return "folder", [metadata]
    if (folder / STATE).exists() and format in (None, "datasets"):
        return "datasets", [folder]
    if any(folder.glob(f"*{SUFFIX}")) and format in (None, "parquet"):
        return "parquet", [folder]
    inner = [found for name in (METADATA, "*.tar", STATE, f"*{SUFFIX}") for found in sorted(folder.glob(f"*/{name}"))]
    found = str(inner[0].relative_to(folder)) if inner else _few(sorted(entry.name for entry in folder.iterdir()))
    fix = "name that folder" if inner else f"name {_SUPPORTED}"
    expected = {None: f"{METADATA}, {STATE}, .tar or {SUFFIX} files", "folder": METADATA, "datasets": STATE}
    expected |= {"webdataset": ".tar shards", "parquet": f"{SUFFIX} files"}
    raise DataError(folder, f"expected {expected.get(format, 'a JSON file')}, found {found}", fix)


def _few(names: Sequence[str]) -> str:
    if not names:
        return "an empty folder"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _told_file(file: Path) -> Format:
    if file.suffix == ".tar":
        return "webdataset"
    if file.suffix not in (".json", ".jsonl"):
        raise DataError(file, f"expected {_SUPPORTED}, found another kind of file", "say the format if it is one")
    if file.name == METADATA:
        return "folder"
    row = _first_row(file)
    for column, format in _COLUMNS.items():
        if column in row:
            return format
    raise DataError(f"{file}:1", f"expected a column {' or '.join(_COLUMNS)}, found {', '.join(row) or 'none'}")


def _first_row(file: Path) -> Row:
    """The first row, by reading no more than it takes; of one that is not JSON, a row that lets the reader say so."""
    size, decode = 2**16, json.JSONDecoder().raw_decode
    with file.open("rb") as opened:
        head = opened.read(size)
        while True:
            text = head.decode("utf-8-sig", errors="replace").lstrip()
            try:
                row, _ = decode(text.removeprefix("[").lstrip())
                return row if isinstance(row, dict) else {}
            except (ValueError, RecursionError):
                more = opened.read(size)
                if not more:
                    return dict.fromkeys(_COLUMNS)
                head, size = head + more, size * 2
