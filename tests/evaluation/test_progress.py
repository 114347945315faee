"""The bar appears on a terminal only, and only for work that lasts."""

import io

import pytest
from rich.console import Console

from mmbridge.evaluation import progress
from mmbridge.evaluation.progress import Progress


def shown(terminal: bool) -> str:
    out = io.StringIO()
    with Progress("eval vqa", 4, Console(file=out, force_terminal=terminal)) as bar:
        for _ in range(4):
            bar.advance(1)
    return out.getvalue()


def test_short_work_shows_nothing() -> None:
    assert shown(terminal=True) == ""


def test_long_work_shows_a_bar_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert "eval vqa" in shown(terminal=True)
    assert shown(terminal=False) == ""
