"""Root folders install as ``mmbridge.*``: mapping, links, guards and the built wheel agree."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
MAPPING: dict[str, str] = SETUPTOOLS["package-dir"]
ROOT_FOLDERS = sorted(folder for folder in MAPPING.values() if "/" not in folder)


def package_name(init: Path) -> str:
    """The dotted name under which the package of a real (not linked) ``__init__.py`` is imported."""
    folder = init.parent.relative_to(ROOT)
    return ".".join(folder.parts if folder.parts[0] == "mmbridge" else ("mmbridge", *folder.parts))


def real_packages() -> list[Path]:
    """Every ``__init__.py`` of the package, each once, by its real path."""
    found = []
    for top in ["mmbridge", *ROOT_FOLDERS]:
        for folder, _, names in os.walk(ROOT / top):  # does not follow links
            if "__init__.py" in names:
                found.append(Path(folder) / "__init__.py")
    return found


def test_links_are_the_mapping() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "mmbridge").iterdir() if path.is_symlink()}
    assert links == {folder: f"../{folder}" for folder in ROOT_FOLDERS}
    assert all(MAPPING[f"mmbridge.{folder}"] == folder for folder in ROOT_FOLDERS)


def test_mapping_of_deeper_packages_follows_their_folder() -> None:
    for name, folder in MAPPING.items():
        assert name == "mmbridge." + folder.replace("/", ".")
        assert (ROOT / folder / "__init__.py").is_file()


def test_every_package_is_declared() -> None:
    declared = SETUPTOOLS["packages"]
    assert sorted(declared) == sorted(package_name(init) for init in real_packages())
    outside = [name for name in declared if package_name_is_outside(name)]
    assert sorted(outside) == sorted(MAPPING), "a package outside mmbridge/ needs its line in package-dir"


def package_name_is_outside(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[1] in ROOT_FOLDERS


@pytest.mark.parametrize("folder", ROOT_FOLDERS)
def test_bare_names_refuse(folder: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert f"import this package as mmbridge.{folder}, not {folder}" in run.stderr


def test_no_module_imports_a_bare_name() -> None:
    for init in real_packages():
        for path in init.parent.glob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                words = line.split()
                if len(words) > 1 and words[0] in ("import", "from"):
                    assert words[1].split(".")[0] not in ROOT_FOLDERS, f"{path}: {line}"


@pytest.mark.slow
def test_the_wheel_holds_the_tree(tmp_path: Path) -> None:
    """Builds the wheel from a clean copy of the tree and compares every file in it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for top in ("mmbridge", *ROOT_FOLDERS):
        shutil.copytree(ROOT / top, source / top, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

    (wheel,) = tmp_path.glob("*.whl")
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {}
    for top in ("mmbridge", *ROOT_FOLDERS):
        for folder, _, names in os.walk(source / top):
            for path in (Path(folder) / name for name in names):
                if path.suffix in (".py", ".yaml", ".typed") or "weights" in path.parts:
                    expected["mmbridge/" + path.relative_to(source).as_posix().removeprefix("mmbridge/")] = path
    assert built == set(expected)
    with zipfile.ZipFile(wheel) as archive:
        for name, path in expected.items():
            assert archive.read(name) == path.read_bytes(), name
