"""Encoder configs: light to import, strict about what contradicts itself."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mmbridge.encoders.config import EncoderConfig, OpenCLIPConfig, TimmConfig, TransformersConfig


def test_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "PIL", "timm", "open_clip", "huggingface_hub"}
    program = f"import sys, mmbridge.encoders.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("config", [OpenCLIPConfig, TimmConfig, TransformersConfig])
def test_kind_chooses(config: type[TimmConfig]) -> None:
    written = config(path="org/name", layer=(-2, -1), aspect="tiles", pinpoints=((32, 64),))
    read: Any = TypeAdapter(EncoderConfig).validate_python(written.model_dump(mode="json"))
    assert read == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ()}, "expected at least one hidden state"),
        ({"tokens": "pooled", "layer": -2}, "the pooled output has no layer"),
        ({"tokens": "pooled", "norm": True}, "the pooled output has no layer"),
        ({"pinpoints": ((32, 32),)}, "only aspect tiles reads them, found aspect own"),
        ({"tokens": "class"}, "Input should be 'all', 'patches', 'cls' or 'pooled'"),
        ({"layers": 3}, "Extra inputs are not permitted"),
    ],
)
def test_contradictions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformersConfig(path="org/name", **options)
