"""Parquet files as ``datasets`` itself writes them, for tests; they need the extra ``hf``."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.data.pictures import encoded, noise


def written(path: Path, columns: dict[str, list[Any]], rows: int = 8, **features: Any) -> Path:
    """A Parquet file with row groups of so many ``rows``; ``features`` says the type of columns that hold images."""
    import datasets

    datasets.disable_progress_bars()
    inferred = datasets.Dataset.from_dict({key: column for key, column in columns.items() if key not in features})
    whole = datasets.Features({**inferred.features, **features})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=whole).to_parquet(str(path), batch_size=rows)
    return path


def captions(path: Path, numbers: range, rows: int = 8, side: int = 64) -> Path:
    """Captioned pictures of these numbers, every seventh without one."""
    import datasets

    pictures = [None if n % 7 == 6 else {"bytes": encoded(noise(n, side)), "path": f"{n}.png"} for n in numbers]
    columns: dict[str, list[Any]] = {
        "image": pictures,
        "text": [f"text {n}" for n in numbers],
        "questions": [[{"question": f"q{m}?", "answers": [f"a{n}"]} for m in range(n % 3)] for n in numbers],
        "id": [f"r{n}" for n in numbers],
        "embedding": [np.arange(n, n + 50, dtype=np.float32) for n in numbers],
    }
    return written(path, columns, rows, image=datasets.Image())
