"""What the README says is true: its commands parse, its code compiles, its paths exist, its table is current."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mmbridge.cli.app import app
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import load, shipped
from tests import parts_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for written, text in fenced if written == language]


def commands(program: str) -> list[str]:
    lines = [line.strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("line", commands("mmbridge"))
def test_commands_parse(line: str) -> None:
    """Each command is taken apart as its verb would, up to the point of running it."""
    arguments = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    context = command.make_context("mmbridge", arguments, resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        _, command, rest = command.resolve_command(context, rest)
        context = command.make_context(command.name, rest, parent=context)
    if command.name == "train":
        load(context.params["recipe"], context.params["overrides"] or [])


def test_commands_are_there() -> None:
    assert len(commands("mmbridge")) >= 8
    assert commands("make") == ["make demo", "make test"]


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_exist(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{line.split()[1]}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_compiles_and_names_exist(code: str) -> None:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            for alias in node.names:
                assert hasattr(module, alias.name)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_valid_recipe_sections(text: str) -> None:
    whole = yaml.safe_load(Recipe.load("quickstart").dump()) | yaml.safe_load(text)
    assert Recipe.model_validate(whole).encoders


def test_the_tree_exists() -> None:
    (tree,) = (block for block in blocks("") if block.startswith("pyproject.toml"))
    first, *rest = tree.splitlines()
    folder = ROOT
    for name in first.split():
        assert (ROOT / name).is_file(), name
    for line in rest:
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
        assert (folder / name if line.startswith(" ") else folder).exists(), line
        for other in re.findall(r"\b\w+\.py\b", line):
            assert (folder / other).exists(), line


def test_every_shipped_recipe_is_listed() -> None:
    section = README.split("## Recipes")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE) == list(SHOWN)


SHOWN = (
    "quickstart",
    "digits",
    "llava-1.5",
    "limber",
    "llava-more",
    "blip-2",
    "minigpt-4",
    "instructblip",
    "x-llm",
    "align-vlm",
    "x-former",
    "vlap",
    "item-language-model",
)


def test_shown_recipes_are_the_shipped_ones() -> None:
    assert sorted(SHOWN) == sorted(shipped())


def test_every_verb_is_listed() -> None:
    section = README.split("## Command line")[1].split("\n## ")[0]
    command: Any = typer.main.get_command(app)
    for verb in command.list_commands(None):
        assert f"`{verb}" in section, verb


def test_the_table_of_parts_is_current() -> None:
    assert parts_table.with_table(README) == README, "run: python -m tests.parts_table"
