"""The page holds every figure, is well formed, and needs nothing beside it."""

import errno
import os
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from math import inf, isfinite, nan
from pathlib import Path

import pytest

from mmbridge.alignment.rendering.comparison import Comparison
from mmbridge.alignment.rendering.long_form import rows
from mmbridge.alignment.rendering.page import page, write_page
from mmbridge.alignment.rendering.palette import colours
from mmbridge.alignment.report import AlignmentReport, Definition, Scalar
from mmbridge.errors import UserError
from mmbridge.evaluation.bootstrap import Estimate
from tests.alignment.rendering.made_up import DEFINITIONS, around, curve, report

_ALONE = {"meta", "link", "br", "img", "input", "hr"}


class Document(HTMLParser):
    """Refuses tags that do not match; collects elements, cells of tables by their rows, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _ALONE:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def told(*reports: AlignmentReport) -> Document:
    text = page(Comparison(reports))
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    return Document(text)


def test_every_number_is_on_the_page() -> None:
    reports = (report("first"), report("second", 0.0625))
    found = told(*reports).rows
    cells = {cell for row in found for cell in row}
    for each in reports:
        charted = replace(each, scalars=(), words=())
        numbers = [
            number for row in rows(charted) for number in (row.value, row.low, row.high, row.control, row.chance)
        ]
        for number in (number for number in numbers if number is not None and isfinite(number)):
            assert f"{number:.6g}" in cells
    assert found.count(["first", "2", "0.40625", "0.375", "0.46875", "0.203125", "0.1875", "0.234375", "-0.25"]) == 1
    assert found.count(["block 1", "k", "-0.375", "0.34375"]) == 1
    assert found.count(["text", "2", "1.5 to 4", "2"]) == 2
    assert found.count(["image", "2", "1", "y", "2.125"]) == 2
    assert {"1.188 ×", "1.438 ×"} <= cells


def test_the_summary_has_means_and_scalars_beside_control_and_chance() -> None:
    found = told(report("first"), report("second", 0.0625)).rows
    first = next(place for place, row in enumerate(found) if row[0] == "score")
    assert found[first + 1] == [
        "Alikeimage and text, block, mean over depth",
        "first",
        "0.391 [0.359, 0.453]",
        "0.195",
        "-0.250",
        "↑",
    ]
    assert found[first + 2][:2] == ["second", "0.453 [0.422, 0.516]"]
    gap = next(place for place, row in enumerate(found) if row[0].startswith("Gapimage"))
    assert found[gap][1:] == ["first", "0.867 [0.836, 0.930]", "0.023 [-0.008, 0.086]", "0.008", "↓"]


def test_the_head_says_what_is_common_once_and_the_rest_by_bridge() -> None:
    document = told(report("first"), report("second", 0.0625))
    assert document.text.count("scenes & more") == 1
    assert document.text.count("517") == 1
    assert ["first", "12.5"] in document.rows
    assert ["second", "12.5625"] in document.rows


def test_definitions_are_told() -> None:
    found = told(report()).rows
    for score, each in DEFINITIONS.items():
        (row,) = (row for row in found if len(row) == 7 and row[0] == each.title + score)
        assert row[1:3] == [each.formula, each.unit]
        assert each.better in row[3]
        assert row[4:] == [each.chance or "–", each.control or "–", each.source]


def test_all_bridges_share_a_chart_each_in_its_colour() -> None:
    reports = [report(f"bridge {place}", place / 64) for place in range(11)]
    text = page(Comparison(reports))
    charts = re.findall(r'<svg [^>]*aria-label="Alike.*?</svg>', text, re.DOTALL)
    assert len(charts) == 2
    for svg in charts:
        assert re.findall(r'style="color:(var\(--bridge-\d+\))"', svg) == [f"var(--bridge-{i})" for i in range(11)]
    lights = [colour.light for colour in colours(11)]
    assert len(set(lights)) == 11
    for place, light in enumerate(lights):
        assert f"--bridge-{place}: {light};" in text


@pytest.mark.parametrize("count", [2, 8, 9, 24])
def test_colours_differ_and_show_on_their_ground(count: int) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ground, shades in (
        ("#ffffff", [c.light for c in colours(count)]),
        ("#14171b", [c.dark for c in colours(count)]),
    ):
        assert len(set(shades)) == count
        for shade in shades:
            light, dark = sorted((luminance(ground), luminance(shade)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 2


def test_nothing_is_loaded_and_nothing_runs() -> None:
    document = told(report())
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {tag for tag, _ in document.tags}
    for _, attributes in document.tags:
        assert not {"src", "onclick", "onload"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    (policy,) = (each["content"] for tag, each in document.tags if each.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "url(" not in page(Comparison([report()]))
    anchors = {each["href"] for tag, each in document.tags if tag == "a"}
    assert anchors == {f"#{each['id']}" for tag, each in document.tags if tag == "section"}


def test_charts_speak_to_who_cannot_see_them() -> None:
    drawn = [each for tag, each in told(report()).tags if tag == "svg" and not each.get("aria-hidden")]
    assert len(drawn) == 5
    assert all(each["role"] == "img" and each["aria-label"] for each in drawn)
    assert drawn[0]["aria-label"] == "Alike of image and text over depth, block; means: first 0.391 [0.359, 0.453]"


@pytest.mark.parametrize("name", ["<script>1</script>", "a\"b' onload=x &amp;", "桥 🌉", "x" * 500, "a\x00b\x1b[31m"])
def test_names_are_text_whatever_they_hold(name: str) -> None:
    definitions = DEFINITIONS | {"gap": Definition(name, name, name, "higher", name, name, name)}
    rude = report(name, scalars=(Scalar("gap", (name,), around(0.5)),), about={name: name}, cost={name: 1.5})
    document = told(replace(rude, definitions=definitions, curves=(curve([0.5], of=(name,), site=name),)))
    assert not [tag for tag, _ in document.tags if tag == "script"]
    shown = name.replace("\x00", "�").replace("\x1b", "�")
    assert document.text.count(shown) > 10
    assert shown in {each.get("title") for tag, each in document.tags if tag == "bdi"}


def test_curves_may_be_empty_and_numbers_not_finite() -> None:
    broken = Scalar("gap", ("image",), Estimate(nan, nan, nan), Estimate(inf, nan, nan), nan)
    document = told(report(curves=(curve([]), curve([0.5, nan, -inf], site="norm")), scalars=(broken,)))
    assert "no values" in document.text
    assert ["Gapimage", "first", "–", "–", "–", "↓"] in document.rows
    assert not re.search(r"\b(nan|inf)\b", document.text)


def test_a_report_of_nothing_is_a_page_without_charts() -> None:
    document = told(AlignmentReport("none", {}, {}))
    assert "Alignment of none" in document.text
    assert "svg" not in {tag for tag, _ in document.tags}


def test_bridges_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    other = DEFINITIONS | {"ima": replace(DEFINITIONS["ima"], formula="cos²")}
    with pytest.raises(UserError, match="second: expected the definition of ima that first"):
        write_page([report("first"), replace(report("second"), definitions=other)], tmp_path / "a.html")
    with pytest.raises(UserError, match="same: expected bridges of different names"):
        write_page([report("same"), report("same")], tmp_path / "a.html")
    with pytest.raises(UserError, match="at least one bridge"):
        write_page([], tmp_path / "a.html")
    with pytest.raises(KeyError, match="score 'ima' of 'first' has no definition"):
        write_page([replace(report(), definitions={})], tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.html"
    write_page([report("first")], path)
    before = path.read_bytes()
    assert before.decode() == page(Comparison([report("first")]))

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_page([report("second")], path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_words_are_told_depth_by_depth() -> None:
    text = page(Comparison([report("one"), report("other")]))
    assert text.count("<q>&lt;red&gt;</q> 0.50, <q>a</q> 0.25") == 2
    assert "<q>blue</q> 0.75" in text
