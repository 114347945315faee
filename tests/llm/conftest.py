"""Tiny language models, built once per test run and family, and prompts with perceptual tokens for them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmbridge.llm.config import LLMConfig
from mmbridge.llm.model import LanguageModel
from tests.tiny import tiny_llm


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family to folder; the same folder every time."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tiny_llm(tmp_path_factory.mktemp(family), family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def llm(llm_folder: Callable[[str], Path]) -> Callable[[str], LanguageModel]:
    """Family to a frozen language model, shared: tests leave it as it is."""
    built: dict[str, LanguageModel] = {}

    def model(family: str = "llama") -> LanguageModel:
        if family not in built:
            built[family] = LLMConfig(path=str(llm_folder(family))).build()
        return built[family]

    return model
