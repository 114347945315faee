"""The README's table of parts, made from the config unions, the scores of alignment, and the tests marked as proofs.

    python -m tests.parts_table     rewrites the table in README.md

Tests are read, not run or imported: a mark is found in the source, so this takes well under a second.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from mmbridge.alignment.definitions import definitions
from mmbridge.alignment.weights.activated import DEFINITIONS
from mmbridge.config import Config
from mmbridge.connectors.config import ProjectorConfig, ResamplerConfig
from mmbridge.encoders.config import EncoderConfig
from mmbridge.objectives.config import ObjectiveConfig

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- parts: begin -->", "<!-- parts: end -->"
UNIONS: dict[str, Any] = {
    "encoder": EncoderConfig,
    "resampler": ResamplerConfig,
    "projector": ProjectorConfig,
    "objective": ObjectiveConfig,
}


SCORES = {
    "token_cosine": r"ima_(median|max|min|max_mean)(_.*)?",
    "ima": r"ima(_.*)?",
    "cone": r"cone(_tokens)?|across",
    "consecutive": r"consecutive_\d+",
    "norm": "norm",
    "gap": "gap",
    "mutual_knn": "mutual_knn(_best)?",
    "cka": "cka",
    "cknna": "cknna",
    "mir": "mir(_term)?",
    "entropy": "entropy",
    "kl": "kl",
    "words": "words",
    "iou": "iou(_across_depth)?",
}
"""Scores of alignment that are one computation read in several ways, and what matches their names; the first counts."""


@dataclass(frozen=True, slots=True)
class Part:
    """One member of a union, or a kind of score."""

    role: str
    kind: str
    about: str
    papers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """One test that holds a kind against something not written here."""

    kind: str
    against: str
    test: str


def parts() -> list[Part]:
    """Everything the unions list, in their order."""
    found = []
    for role, union in UNIONS.items():
        bare = get_args(union)[0] if get_origin(union) is Annotated else union
        for config in get_args(bare) or (bare,):
            (kind,) = get_args(config.model_fields["kind"].annotation)
            about = (inspect.getdoc(config) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
            found.append(Part(role, kind, about.rstrip("."), papers(config)))
    return [*found, *_scores()]


def _scores() -> Iterator[Part]:
    every = {**definitions((1,)), **DEFINITIONS}
    named: dict[str, list[str]] = {kind: [] for kind in SCORES}
    for score in every:
        named[next(kind for kind, pattern in SCORES.items() if re.fullmatch(pattern, score))].append(score)
    for kind, scores in named.items():
        sources = " ".join(every[score].source for score in scores)
        found = dict.fromkeys(re.findall(r"arXiv (\d{4}\.\d{4,5})", sources))
        yield Part("score", kind, every[scores[0]].title, tuple(found))


def proofs(folder: Path = ROOT / "tests") -> list[Proof]:
    """Every ``@pytest.mark.proof(kind, against=...)`` in the test files under ``folder``, in order of file and line."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                test = f"{path.relative_to(folder.parent).as_posix()}::{node.name}"
                found += [Proof(*mark, test) for mark in _marks(node.decorator_list, path)]
    return found


def _marks(decorators: list[ast.expr], path: Path) -> Iterator[tuple[str, str]]:
    for decorator in decorators:
        if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.proof"):
            continue
        words = {keyword.arg: keyword.value for keyword in decorator.keywords}
        kind, against = (*decorator.args, words.get("kind"))[0], words.get("against")
        if not isinstance(kind, ast.Constant) or not isinstance(against, ast.Constant):
            raise ValueError(f"{path}:{decorator.lineno}: kind and against of a proof must be written in literals")
        yield str(kind.value), str(against.value)


def papers(config: type[Config]) -> tuple[str, ...]:
    """arXiv ids, and the remark after each, in a config's docstring and in the header of the module it builds from."""
    texts = [inspect.getdoc(config) or ""]
    build = getattr(config, "build", None)
    source = inspect.getsource(build) if build is not None else ""
    for module in re.findall(r"from (mmbridge\.\S+) import", source):
        spec = find_spec(module)
        if spec is not None and spec.origin is not None:
            tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
            texts.append(ast.get_docstring(tree) or "")
    found = re.findall(r"arXiv (\d{4}\.\d{4,5})( \([^)]*\))?", " ".join(" ".join(texts).split()))
    return tuple(dict.fromkeys(paper + remark.replace("``", "`") for paper, remark in found))


def table() -> str:
    """The table as Markdown."""
    marked = proofs()
    lines = ["| part | kind | what it is | paper (arXiv) | held against |", "|---|---|---|---|---|"]
    for part in parts():
        against = dict.fromkeys(proof.against for proof in marked if proof.kind == part.kind)
        held = "<br>".join(against).replace("|", "\\|")
        lines.append(f"| {part.role} | `{part.kind}` | {part.about} | {'<br>'.join(part.papers) or '–'} | {held} |")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """The README with its table replaced."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
