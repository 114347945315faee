"""The columns of a Parquet file: whether records can be made of them, and what is read to count and to draw."""

import json
from dataclasses import dataclass
from typing import Any

from mmbridge.data.arrow_records import MEDIA
from mmbridge.data.rows import COLUMNS, CONTENT
from mmbridge.errors import DataError

_PARTS = {"bytes", "path"}
"""Of an image, as the feature ``Image`` of ``datasets`` stores it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """``drawn`` are the columns that a record is made of, ``counted`` the same without the bytes of images."""

    drawn: list[str]
    counted: list[str]


def columns_of(metadata: Any, where: str) -> Columns:
    """What is read of a file; other columns are passed over.

    Args:
        metadata: pyarrow's ``FileMetaData``.

    Raises:
        DataError: no column that says something about the medium, one of them twice, images in a column of another
            name or of a type that is not read.
    """
    schema = metadata.schema.to_arrow_schema()
    drawn = [name for name in schema.names if name in (*COLUMNS, *MEDIA)]
    if not set(drawn) & set(CONTENT):
        found = ", ".join(schema.names[:20]) or "none"
        raise DataError(where, f"expected one of the columns {', '.join(CONTENT)}, found {found}")
    if len(set(drawn)) < len(drawn):
        twice = next(name for name in drawn if drawn.count(name) > 1)
        raise DataError(where, f"expected each column once, found {twice} twice")
    features = _features(schema)
    for field in schema:
        if field.name in MEDIA:
            _see_that_it_holds_images(field, where)
        elif _parts(field) == _PARTS and features.get(field.name, "Image") == "Image":
            problem = f"expected images in a column image or images, found {field.name}"
            raise DataError(where, problem, "rename the column")
    paths = [metadata.schema.column(number).path for number in range(len(metadata.schema))]
    light = [path for path in paths if path.split(".")[0] in MEDIA and not path.endswith(".bytes")]
    return Columns(drawn, [*(name for name in drawn if name not in MEDIA), *light])


def _inner(type: Any) -> Any:
    """The type of what a list holds; any other type as it is."""
    from pyarrow import types

    listed = types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type)
    return type.value_type if listed else type


def _parts(field: Any) -> set[str]:
    from pyarrow import types

    inner = _inner(field.type)
    return {part.name for part in inner} if types.is_struct(inner) else set()


def _see_that_it_holds_images(field: Any, where: str) -> None:
    from pyarrow import types

    inner = _inner(field.type)
    paths = types.is_string(inner) or types.is_large_string(inner)
    if not (paths or _parts(field) >= _PARTS or types.is_null(inner)):
        problem = f"{field.name}: expected images as bytes and path, or as paths, found {field.type}"
        raise DataError(where, problem[:300], "write them with datasets, as its feature Image")


def _features(schema: Any) -> dict[str, str]:
    """What ``datasets`` has noted of each column's feature, where it has written the file."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {name: told.get("feature", told) for name, told in noted.items() if isinstance(told, dict)}
        return {name: str(told["_type"]) for name, told in inner.items() if "_type" in told}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}
