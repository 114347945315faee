"""Frozen parts: where they come from, how a change in them is noticed, and how they are kept as they are.

A part is named by a hub id and revision, a local folder, or ``world:NAME`` for the ones shipped with the package.
All three end in a folder of safetensors, JSON and text. Pickled weights are neither downloaded nor read.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmbridge.cache import cache_folder
from mmbridge.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    ModuleT = TypeVar("ModuleT", bound=nn.Module)

_DOWNLOADED = ["*.json", "*.yaml", "*.txt", "*.model", "*.safetensors", "*.jinja"]
_SECOND_COPIES = ["original/*", "consolidated*", "onnx/*"]  # the same weights again, in another library's format
_HASHED = (
    *("*.safetensors", "*.safetensors.index.json", "*config.json"),
    *("tokenizer*", "vocab.*", "merges.txt", "*.model", "added_tokens.json", "special_tokens_map.json"),
    *("*.jinja", "chat_template*"),
)
_Entry = tuple[int, int, str]  # size, modification time in nanoseconds, hash
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(path: str, revision: str | None = None) -> Path:
    """The folder that holds a frozen part.

    Args:
        path: ``world:NAME``, a folder, or a hub id ``org/name``, looked at in this order.
        revision: branch, tag or commit on the hub; unused for the other two.

    Raises:
        RecipeError: nothing of that name exists, or the hub cannot be reached.
    """
    if path.startswith("world:"):
        return _shipped(path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise RecipeError(path, "expected a folder, found a file")
    if not _HUB_ID.fullmatch(path):
        raise RecipeError(path, "no such folder", "give a folder, a hub id such as org/name, or world:NAME")
    return _downloaded(path, revision)


def _shipped(path: str) -> Path:
    spec = find_spec("mmbridge.data.world")
    assert spec is not None
    assert spec.origin is not None
    weights = Path(spec.origin).parent / "weights"
    folder = weights / path.removeprefix("world:")
    names = sorted(entry.name for entry in weights.iterdir() if entry.is_dir()) if weights.is_dir() else []
    if folder.name not in names:
        raise RecipeError(path, "the embedded world has no part of that name", f"it has {', '.join(names) or 'none'}")
    return folder


def _downloaded(path: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(
            snapshot_download(path, revision=revision, allow_patterns=_DOWNLOADED, ignore_patterns=_SECOND_COPIES)
        )
    except GatedRepoError as error:
        raise RecipeError(
            path, "the hub lets only some accounts read it", "ask for access, then hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise RecipeError(path, "there is no such folder, and the hub has no model of that name") from error
    except RevisionNotFoundError as error:
        raise RecipeError(path, f"the hub has no revision {revision!r} of it") from error
    except (OSError, ValueError) as error:  # no network, HF_HUB_OFFLINE, a full disk, an id the hub's rules forbid
        problem = f"there is no such folder, and the hub gave nothing ({_first_line(error)})"
        raise RecipeError(path, problem, "name a local folder, or try again with a network") from error


def safetensors_in(folder: Path) -> list[Path]:
    """The weight files of a folder, sorted by name.

    Raises:
        RecipeError: there is none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".npz"})
        found = f"only {', '.join(others)}" if others else "none"
        raise RecipeError(folder, f"expected weights in safetensors, found {found}", "pickles are never read")
    return files


@contextmanager
def reading(folder: Path, library: str) -> Iterator[None]:
    """Turns whatever a library raises over a folder it cannot read into one line.

    Raises:
        RecipeError: in place of the library's own error, which stays its cause.
    """
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:  # libraries raise everything from KeyError to their own kinds over a bad folder
        raise RecipeError(folder, f"{library} cannot read it ({type(error).__name__}: {_first_line(error)})") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Silences libraries while they load: progress bars, and warnings that a larger checkpoint has weights for which
    the part asked for has no use. What is missing is checked by the caller."""
    from transformers.utils import logging as transformers_logging

    level, bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.disable(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def check_complete(folder: Path, report: Mapping[str, Iterable[Any]]) -> None:
    """Looks through what transformers reports with ``output_loading_info`` and ``ignore_mismatched_sizes``.

    Raises:
        RecipeError: a weight is missing, or is there in another shape; transformers would draw it at random.
    """
    for what, keys in (("missing", report["missing_keys"]), ("of another shape", report["mismatched_keys"])):
        if names := sorted(key if isinstance(key, str) else key[0] for key in keys):
            raise RecipeError(
                folder, f"expected every weight of the model, found {len(names)} {what}: {names[0]} first"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def freeze(module: "ModuleT") -> "ModuleT":
    """No gradients, evaluation mode; returns the module."""
    module.requires_grad_(False)
    return module.eval()


def content_hash(place: Path) -> str:
    """SHA-256 over the names and contents of a folder's weights, configuration, tokenizer and template files; of a file
    over its own.

    Each file's own hash is kept by path, size and modification time under ``$XDG_CACHE_HOME/mmbridge``, so what
    has not changed is not read again.

    Raises:
        RecipeError: the folder holds nothing to hash.
    """
    folder = place.parent if place.is_file() else place
    inside = (file for file in folder.rglob("*") if _counts(file.relative_to(folder)) and file.is_file())
    files = [place] if place.is_file() else sorted(inside)
    if not files:
        raise RecipeError(folder, "expected weights and a configuration, found neither")
    digest = hashlib.sha256()
    for file, own in _hashes(files).items():
        digest.update(f"{file.relative_to(folder).as_posix()}\0{own}\n".encode())
    return digest.hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file's contents alone, whatever it is called; kept as those of ``content_hash`` are."""
    return _hashes([file])[file]


def _hashes(files: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file's contents."""
    known, found = _read_cache(), dict[Path, str]()
    fresh: dict[str, _Entry] = {}
    for file in files:
        key, facts = str(file.resolve()), file.stat()
        entry = known.get(key)
        if entry is None or entry[:2] != (facts.st_size, facts.st_mtime_ns):
            with file.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
            entry = fresh[key] = (facts.st_size, facts.st_mtime_ns, own)
        found[file] = entry[2]
    if fresh:
        _write_cache(known | fresh)
    return found


def _counts(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)  # the hub client's own notes
    return not hidden and any(fnmatch(name.name, pattern) for pattern in _HASHED)


def _cache_file() -> Path:
    return cache_folder() / "hashes.json"


def _read_cache() -> dict[str, _Entry]:
    try:
        found = json.loads(_cache_file().read_text())
        return {key: (int(size), int(time), str(value)) for key, (size, time, value) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # absent, unreadable or not ours: hash again
        return {}


def _write_cache(entries: dict[str, _Entry]) -> None:
    """Replaces the file in one move, so that a reader sees the old or the new; a cache that cannot be kept is fine."""
    target = _cache_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".tmp", delete=False) as stream:
            json.dump(entries, stream)
        os.replace(stream.name, target)
    except OSError:
        return
