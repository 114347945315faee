"""Folders of tiny models, each made once in a run and only when a test asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.encoders.models import MAKERS


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name in ``MAKERS``."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("models") / name
            MAKERS[name](made[name])
        return made[name]

    return get
