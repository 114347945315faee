"""The bar is for those who wait, and only where somebody can see it."""

import io

import pytest
from rich.console import Console

from mmbridge.data import progress
from mmbridge.data.progress import Waiting, waited_for


def shown(patience: float, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(progress, "PATIENCE", patience)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    with Waiting("packing", 3, console=console) as waiting:
        waiting.advance()
        waiting.advance()
    return out.getvalue()


def test_nothing_is_shown_to_those_who_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(60.0, True, monkeypatch) == ""
    assert "packing" in shown(-1.0, True, monkeypatch)


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(-1.0, False, monkeypatch) == ""


def test_items_pass_as_they_are() -> None:
    assert list(waited_for(iter("abc"), "reading", 3)) == ["a", "b", "c"]
