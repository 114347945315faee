"""The data section of a recipe: what it refuses, and what it builds."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmbridge.data.config import DataConfig, SkipConfig
from mmbridge.data.writers import write_folder
from tests.data.pictures import record


def test_a_mix_of_every_kind_is_built(tmp_path: Path) -> None:
    write_folder([record(0)], tmp_path / "files")
    config = DataConfig.model_validate(
        {
            "mix": [
                {"kind": "files", "path": str(tmp_path / "files"), "task": "caption", "weight": 0.01},
                {"kind": "world", "count": 10, "task": "vqa", "turns": 3, "weight": 2},
                {"kind": "digits", "split": "test", "task": "vqa", "turns": 7},
                {"kind": "items", "split": "validation", "task": "pairs", "beside": "user"},
            ],
            "on_bad_sample": {"skip_up_to": 0.01},
        }
    )
    mixture = config.build(seed=3)
    assert [len(source) for source in mixture.sources] == [1, 30, 360, 128]
    assert config.on_bad_sample == SkipConfig(skip_up_to=0.01)
    assert DataConfig.model_validate(config.model_dump()) == config
    assert len(mixture[0].media) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"mix": []},
        {"mix": [{"kind": "file", "path": "x"}]},
        {"mix": [{"kind": "files", "path": "x", "weight": 0}]},
        {"mix": [{"kind": "files", "path": "x", "weight": float("inf")}]},
        {"mix": [{"kind": "files", "path": "x", "wieght": 1}]},
        {"mix": [{"kind": "world", "count": 0}]},
        {"mix": [{"kind": "digits"}], "on_bad_sample": "skip"},
        {"mix": [{"kind": "digits"}], "on_bad_sample": {"skip_up_to": 1.5}},
    ],
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate(wrong)
