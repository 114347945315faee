"""Vectors as a medium: an item's, a user's or any other embedding, in memory or in a file.

    item.npy                  (D,) one vector, or (K, D) a few
    items.npy#17              row 17 of a table, (rows, D) or (rows, K, D)
    item.safetensors          the only tensor in it
    items.safetensors#B0017   the tensor of that name
    items.safetensors#17      row 17 of the only tensor in it, where none has that name

Of a table no more is read than the row, and nothing is ever unpickled.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mmbridge.data.media import LIMITS, Limits
from mmbridge.data.media_paths import NUMPY, SAFETENSORS, VECTORS
from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError, UserError

Vectors = NDArray[np.float32]
"""(K, D), finite."""

_FORMS = " or ".join(VECTORS)


def open_vectors(medium: Medium, limits: Limits = LIMITS) -> Vectors:
    """The K vectors of a medium.

    Raises:
        MediaError: missing, damaged, no such row, more than ``limits.bytes``, or not one or a few vectors of finite
            floating-point numbers.
    """
    name, source = medium.name, medium.source
    if isinstance(source, Path):
        file, row = _addressed(source)
        read = {NUMPY: _numpy_row, SAFETENSORS: _safetensors_row}.get(file.suffix)
        if read is None:
            raise MediaError(name, f"expected vectors in {_FORMS}, found another kind of file")
        found = read(file, row, name, limits)
    elif isinstance(source, np.ndarray):
        found = source
    else:
        raise MediaError(name, f"expected an array or a path, found {type(source).__name__}")
    if found.dtype.kind != "f":
        raise MediaError(name, f"expected floating-point numbers, found {found.dtype}")
    if found.ndim not in (1, 2) or found.size == 0:
        problem = f"expected one vector or a few, (D,) or (K, D), found shape {found.shape}"
        raise MediaError(name, problem, "name a row of a table: items.npy#17" if found.ndim > 2 else "")
    _require_small(found.nbytes, name, limits)
    with np.errstate(over="ignore"):  # it is told below
        vectors = np.array(found, np.float32, ndmin=2)
    if not np.isfinite(vectors).all():
        raise MediaError(name, f"expected finite numbers, found {vectors[~np.isfinite(vectors)][0]}")
    return vectors


def table_width(table: Path) -> int:
    """D of a table of vectors.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        if table.suffix == NUMPY:
            return int(_numpy(table, str(table)).shape[-1])
        with safe_open(table, "pt") as stored:
            widths = {stored.get_slice(name).get_shape()[-1] for name in stored.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, IndexError) as error:
        raise UserError(table, f"expected a table of vectors, found another file ({error})") from None
    if len(widths) != 1:
        raise UserError(table, f"expected vectors of one width, found {', '.join(map(str, sorted(widths))) or 'none'}")
    return int(widths.pop())


def _addressed(path: Path) -> tuple[Path, str | None]:
    """A file and the row asked for; what stands behind ``#`` belongs to the file's name where such a file exists."""
    if "#" not in str(path) or path.is_file():
        return path, None
    file, _, row = str(path).rpartition("#")
    return Path(file), row


def _numpy_row(file: Path, row: str | None, name: str, limits: Limits) -> NDArray[Any]:
    table = _numpy(file, name)
    if row is None:
        return table
    if table.ndim < 2:
        raise MediaError(name, f"expected a table, (rows, D) or (rows, K, D), found shape {table.shape}")
    found: NDArray[Any] = table[_number(row, len(table), name)]
    return found


def _numpy(file: Path, name: str) -> NDArray[Any]:
    """An array on disk."""
    try:
        with np.errstate(over="raise"):  # of what a header says there is
            found = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MediaError(name, "expected vectors, found no such file") from None
    except (OSError, ValueError, EOFError, ArithmeticError) as error:
        raise _damaged(name, error) from None
    if not isinstance(found, np.ndarray):
        raise MediaError(name, "expected one array, found an archive of several")
    return found


def _safetensors_row(file: Path, row: str | None, name: str, limits: Limits) -> NDArray[Any]:
    try:
        with safe_open(file, "pt") as stored:
            names = stored.keys()
            if row in names or (row is None and len(names) == 1):
                whole = stored.get_slice(row or names[0])
                _require_small(_bytes(whole, whole.get_shape()), name, limits)
                return _floats(whole[:])
            if len(names) != 1:
                problem = f"expected one of {len(names)} tensors by name, found {row!r}" if row else "expected a name"
                raise MediaError(name, problem, f"name one: {file.name}#{min(names, default='NAME')}")
            table = stored.get_slice(names[0])
            _require_small(_bytes(table, table.get_shape()[1:]), name, limits)
            return _floats(table[_number(str(row), table.get_shape()[0], name)])
    except FileNotFoundError:
        raise MediaError(name, "expected vectors, found no such file") from None
    except (OSError, SafetensorError) as error:
        raise _damaged(name, error) from None


def _bytes(stored: Any, shape: list[int]) -> int:
    bits = int("".join(filter(str.isdigit, stored.get_dtype().partition("_")[0])) or 8)
    return int(np.prod(shape, dtype=np.int64)) * bits // 8


def _floats(tensor: torch.Tensor) -> NDArray[Any]:
    """As NumPy has it, which knows no bfloat16."""
    return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)


def _number(row: str, rows: int, name: str) -> int:
    if not (row.isascii() and row.isdigit()) or int(row) >= rows:
        raise MediaError(name, f"expected a row from 0 to {rows - 1}, found {row!r}")
    return int(row)


def _require_small(size: int, name: str, limits: Limits) -> None:
    if size > limits.bytes:
        problem = f"expected one or a few vectors of at most {limits.bytes:,} bytes, found {size:,}"
        raise MediaError(name, problem, "name a row of a table: items.npy#17")


def _damaged(name: str, error: Exception) -> MediaError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return MediaError(name, f"expected vectors in {_FORMS}, found a damaged file or another kind ({reason})")
