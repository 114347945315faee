"""What tests all over the tree begin with."""

from pathlib import Path

import pytest

from tests.tiny_bridge import tiny_recipe


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parts of a tiny bridge, for ``tiny_recipe``."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_recipe(folder)
    return folder
