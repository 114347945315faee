"""What importing costs: names and help need nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "open_clip",
    "timm",
    "deepspeed",
    "peft",
    "webdataset",
    "numpy",
    "PIL",
    "sklearn",
    "datasets",
    "pyarrow",
)


def loaded_after(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after running ``code``."""
    probe = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    found = run.stderr.strip().splitlines()[-1]
    return [] if found == "[]" else [found]


@pytest.mark.parametrize(
    "module",
    [
        "mmbridge",
        "mmbridge.cli.app",
        "mmbridge.recipe",
        "mmbridge.recipe_file",
        "mmbridge.encoders.config",
        "mmbridge.connectors.config",
        "mmbridge.data.config",
        "mmbridge.llm.config",
        "mmbridge.objectives.config",
    ],
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import {module}") == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["recipes"], ["info", "quickstart"], ["train", "nope"]]
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(f"from mmbridge.cli.app import run\nrun({arguments!r})") == []


def test_public_names() -> None:
    assert loaded_after("from mmbridge import Recipe, __version__") == []
    run = subprocess.run(
        [sys.executable, "-c", "import mmbridge; mmbridge.Brigde"], capture_output=True, text=True, check=False
    )
    assert "module 'mmbridge' has no attribute 'Brigde'" in run.stderr


@pytest.mark.slow
def test_nothing_imports_deepspeed() -> None:
    """It compiles and probes on import; this release trains with plain torch."""
    assert loaded_after("from mmbridge import Bridge; import mmbridge.train") != ["deepspeed"]
