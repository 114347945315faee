"""Which Parquet files a name stands for: one, a folder, a pattern; here, at a URL or on the Hugging Face Hub."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os.path import isdir
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mmbridge.data.braces import expanded
from mmbridge.data.download import SCHEMES
from mmbridge.data.ranged_file import RangedFile, file_system, ranged_file, tried
from mmbridge.errors import DataError

SUFFIX = ".parquet"
AT_ONCE = 8
"""How many remote files are asked for at the same time."""
_HUB = "hf://datasets/"
_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}")
"""How ``datasets`` calls the files of a split."""


def names_parquet(path: str) -> bool:
    """Whether a path, a URL or a pattern of them is one of ``.parquet`` files; all on the Hub is taken for it."""
    name = urlsplit(path).path if path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)) else path
    return name.endswith(SUFFIX) or path.startswith("hf://")


def parquet_files(path: str) -> list[RangedFile]:
    """The files, in the order of their names; those of a brace pattern in its own.

    Args:
        path: a file, a folder of them, an http or https URL, ``hf://datasets/ORG/NAME[@REVISION]/FILE``; braces and,
            but for URLs, ``*`` stand for several.

    Raises:
        DataError: nothing there, nothing that could be read, a scheme that is none of these, a folder with the files
            of several splits.
    """
    if path.startswith("hf://"):
        return [file for pattern in expanded(path) for file in _on_the_hub(pattern)]
    scheme, colon, _ = path.partition("://")
    if colon and scheme not in SCHEMES:
        raise DataError(path, f"expected a path, http, https or {_HUB}, found {scheme}", "download the data first")
    if colon:
        names = expanded(path)
        file_system("http")  # says what is missing once, and in this thread
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda name: ranged_file(name, "http", name), names))
    return [file for pattern in expanded(path) for file in _here(pattern)]


def _here(pattern: str) -> Iterator[RangedFile]:
    folder = isdir(pattern)
    names = _globbed(pattern, f"{pattern}/*{SUFFIX}" if folder else pattern)
    if folder:
        _see_that_it_is_one_split(pattern, names)
    for name in names:
        yield ranged_file(name, "file", name)


def _globbed(path: str, pattern: str) -> list[str]:
    """The files that match, as they would be named by hand."""
    place = Path(pattern)
    if "*" not in pattern:
        return [pattern]
    anchor = Path(place.anchor)
    names = sorted(str(found) for found in anchor.glob(str(place.relative_to(anchor))) if found.is_file())
    if not names:
        raise DataError(path, f"expected {SUFFIX} files, found none")
    return names


def _see_that_it_is_one_split(folder: str, names: Sequence[str]) -> None:
    splits = {found[1] for name in names if (found := _SPLIT.fullmatch(Path(name).stem))}
    if len(splits) > 1:
        problem = f"expected the files of one split, found {', '.join(sorted(splits))}"
        raise DataError(folder, problem, f"name one, such as {folder}/{min(splits)}-*{SUFFIX}")


def _on_the_hub(pattern: str) -> list[RangedFile]:
    """At the commit the revision stands for now, so that a run does not see it move."""
    if not pattern.startswith(_HUB) or not pattern.endswith(SUFFIX):
        fix = f"name them, such as {_HUB}ORG/NAME@~parquet/default/train/*{SUFFIX}"
        raise DataError(pattern, f"expected {SUFFIX} files of a data set on the Hub", fix)
    asked = partial(tried, pattern, "hf")
    hub = file_system("hf")
    told: Any = asked(lambda: hub.resolve_path(pattern))
    commit = asked(lambda: _commit(told.repo_id, told.revision))
    found: dict[str, Any] = asked(
        lambda: hub.glob(f"datasets/{told.repo_id}@{commit}/{told.path_in_repo}", detail=True)
    )
    if not found:
        raise DataError(pattern, f"expected {SUFFIX} files, found none")
    begin = pattern.removesuffix(told.path_in_repo)
    paths = {path: str(PurePosixPath(path.partition(f"@{commit}/")[2])) for path in sorted(found)}
    return [ranged_file(f"{begin}{name}", "hf", path, found[path]) for path, name in paths.items()]


def _commit(repository: str, revision: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().repo_info(repository, repo_type="dataset", revision=revision).sha)
