"""All of a data set is read, and all that is wrong with it is found."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmbridge.bridge import Bridge
from mmbridge.data.check import check
from mmbridge.data.formats import open_records, open_source
from mmbridge.data.sources import RecordSource
from tests.data.pictures import encoded, header_only_png, noise, write_lines
from tests.tiny_bridge import tiny_recipe

CUT = encoded(noise(0, 64), "JPEG")[:700]


def said(text: str, *images: str) -> dict[str, Any]:
    parts = [{"type": "image", "path": name} for name in images]
    content = [*parts, {"type": "text", "text": "what?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": text}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, side in enumerate((8, 16, 40)):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(number, side)))
    return tmp_path


def test_what_a_data_set_holds(folder: Path) -> None:
    rows = [said("one", "0.png"), said("two", "1.png", "2.png"), said("none")]
    rows[0]["messages"] += rows[2]["messages"]
    findings = check(open_records(write_lines(folder / "chat.jsonl", rows), late=True))
    assert (findings.records, findings.bad, findings.text_only, findings.problems) == (3, 0, 1, [])
    assert findings.sizes == [(8, 8), (16, 16), (40, 40)]
    for task in ("caption", "vqa", "messages"):
        assert findings.held[task] == len(open_source(folder / "chat.jsonl", task=task))
    assert findings.held["pope"] == 0
    assert findings.lengths == []


@pytest.mark.parametrize("workers", [0, 2])
def test_every_problem_names_its_line(folder: Path, workers: int) -> None:
    """A cut JPEG in every hundred, a bomb, a file that is missing, a broken line, a bad column, a way out."""
    rows: list[Any] = [{"file_name": f"{n % 3}.png", "text": f"text {n}"} for n in range(300)]
    (folder / "cut.jpg").write_bytes(CUT)
    (folder / "bomb.png").write_bytes(header_only_png(60_000, 60_000))
    for line in (50, 150, 250):
        rows[line - 1] = {"file_name": "cut.jpg", "text": "cut"}
    rows[6] = {"file_name": "bomb.png", "text": "bomb"}
    rows[7] = {"file_name": "gone.png", "text": "gone"}
    rows[8] = '{"file_name": "0.png", '
    rows[9] = {"file_name": "0.png", "text": 3}
    rows[10] = {"file_name": "../0.png", "text": "out"}
    path = write_lines(folder / "metadata.jsonl", rows)
    findings = check(open_records(folder, late=True), workers=workers)
    assert (findings.records, findings.bad, len(findings.sizes)) == (300, 8, 292)
    assert findings.first == 0
    lines = [problem.line for problem in findings.problems]
    expected = [
        (7, "expected at most 80,000,000 pixels, found 3,600,000,000"),
        (8, "expected an image, found no such file"),
        (9, "expected JSON, found an error in it"),
        (10, "text: expected text, found 3"),
        (11, "expected media inside"),
        *((number, "expected a whole image, found a damaged one") for number in (50, 150, 250)),
    ]
    for found, (number, problem) in zip(lines, expected, strict=True):
        assert f"{path}:{number}" in found
        assert problem in found
        assert "\n" not in found
    assert findings.kinds[0] == ("expected a whole image", 3)
    assert Counter(dict(findings.kinds)).total() == 8


def test_lengths_are_those_of_the_spliced_sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [
        said("a short answer", "0.png"),
        said("an answer " * 40, "1.png"),
        said("two", "1.png", "2.png"),
        said("none"),
        {"messages": [{"role": "user", "content": "no answer"}]},
        said("half \ud83d of a pair"),
    ]
    path = write_lines(folder / "chat.jsonl", rows)
    parts = tmp_path_factory.mktemp("parts")
    recipe = tiny_recipe(parts)
    bridge = Bridge(recipe.model_copy(update={"llm": recipe.llm.model_copy(update={"max_length": 120})}))
    records = open_records(path, late=True)
    findings = check(records, bridge.collate())
    whole = Bridge(recipe)
    expected = []
    for index in range(4):
        batch = whole.collate()([RecordSource([records[index]], "all")[0]])
        expected.append(whole.spliced(batch, "right").embeds.shape[1])
    assert findings.lengths == expected
    assert findings.lengths[1] > 120 > findings.lengths[2]
    assert [problem.line.partition(": expected ")[0] for problem in findings.problems] == [
        f"{path}:{line}: sample chat.jsonl:{line}" for line in (2, 5, 6)
    ]
    assert [kind for kind, _ in findings.kinds] == [
        "expected at most 120 positions", "expected an answer to learn from", "expected Unicode text",
    ]  # fmt: skip
