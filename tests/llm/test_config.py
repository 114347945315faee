"""The LLM's section of a recipe is read without torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from mmbridge.llm.config import LLMConfig, LoRAConfig
from mmbridge.llm.templates import TemplateName, named_template


def test_reading_a_section_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from mmbridge.llm.config import LLMConfig; LLMConfig(path='a/b', template='qa');"
        "print([name for name in ('torch', 'transformers', 'numpy', 'peft') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sections_round_trip() -> None:
    config = LLMConfig(path="org/name", lora=LoRAConfig(rank=8, alpha=16, targets=("q_proj",)), system="Be brief.")
    assert LLMConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"path": "a", "template": "vicuna"},
        {"path": "a", "dtype": "int8"},
        {"path": "a", "lora": {"rank": 0, "alpha": 1}},
    ],
)
def test_sections_that_are_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LLMConfig.model_validate(wrong)


def test_every_named_template_marks_what_the_assistant_says() -> None:
    names: tuple[TemplateName, ...] = TemplateName.__args__  # type: ignore[attr-defined]
    assert len(names) == 8
    assert all("{% generation %}" in named_template(name, "\n") for name in names)
