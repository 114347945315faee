"""The shipped weights: small, whole, in safetensors, and with their ceilings beside them."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mmbridge.data import world
from mmbridge.frozen import locate

WEIGHTS = Path(world.__file__).parent / "weights"


def test_they_are_safetensors_of_at_most_12_megabytes_together() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}
    assert sum(file.stat().st_size for file in files) <= 12e6


@pytest.mark.parametrize("name", ["clip", "mae", "llm"])
def test_every_part_is_found_and_has_its_ceilings(name: str) -> None:
    assert any(locate(f"world:{name}").glob("*.safetensors"))
    figures = json.loads((WEIGHTS / "ceilings.json").read_text())[name]
    assert all(0 <= value <= 1 for value in figures.values())
    expected = {"text_vqa"} if name == "llm" else {"shape", "colour", "size", "texture", "position"}
    assert figures.keys() >= expected


def test_the_tokenizer_reads_any_case_and_any_script() -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("world:llm"))
    assert tokenizer("A RED Star", add_special_tokens=False) == tokenizer("a red star", add_special_tokens=False)
    for text in ("une étoile à gauche", "7 + 5", "東京 🙂"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert str(tokenizer.decode(ids)).replace(" ", "") == text.replace(" ", "")
