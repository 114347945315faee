"""Every number of a report as a row of its own."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path

from mmbridge.alignment.rendering.comparison import Comparison, over_depths
from mmbridge.alignment.report import AlignmentReport, Curve, Histogram, Matrix, Scalar, View, Words
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.whole_file import write_whole


@dataclass(frozen=True, slots=True)
class Row:
    """One number and where it belongs; ``None`` is what it does not have.

    ``of`` are groups, joined by spaces; ``depth`` is a number, or ``mean``. ``row`` and ``column`` are those of a
    matrix; a histogram's ``row`` is ``LOW to HIGH`` of a bin, that of words a word; a view's are the number of a point
    and ``x`` or ``y``.
    """

    bridge: str
    score: str
    of: str
    site: str | None = None
    depth: int | str | None = None
    row: str | None = None
    column: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    control_low: float | None = None
    control_high: float | None = None
    chance: float | None = None


COLUMNS = tuple(field.name for field in fields(Row))


def rows(report: AlignmentReport) -> Iterator[Row]:
    """All of a bridge."""
    for scalar in report.scalars:
        yield scalar_row(report.bridge, scalar)
    for curve in report.curves:
        yield from curve_rows(report.bridge, curve)
    for matrix in report.matrices:
        yield from matrix_rows(report.bridge, matrix)
    for histogram in report.histograms:
        yield from histogram_rows(report.bridge, histogram)
    for words in report.words:
        yield from words_rows(report.bridge, words)
    for view in report.views:
        yield from view_rows(report.bridge, view)


def scalar_row(bridge: str, scalar: Scalar, site: str | None = None, depth: int | str | None = None) -> Row:
    """The one row of a scalar, or of a curve at one depth."""
    numbers = (*_numbers(scalar.value), *_numbers(scalar.control), scalar.chance)
    return Row(bridge, scalar.score, " ".join(scalar.of), site, depth, None, None, *numbers)


def curve_rows(bridge: str, curve: Curve) -> Iterator[Row]:
    """One for every depth, then one for the mean."""
    controls: Sequence[Estimate | None] = curve.control or [None] * len(curve.depths)
    chances: Sequence[float | None] = curve.chance or [None] * len(curve.depths)
    for depth, value, control, chance in zip(curve.depths, curve.values, controls, chances, strict=True):
        yield scalar_row(bridge, Scalar(curve.score, curve.of, value, control, chance), curve.site, depth)
    yield scalar_row(bridge, over_depths(curve), curve.site, "mean")


def matrix_rows(bridge: str, matrix: Matrix) -> Iterator[Row]:
    """One for every cell."""
    for row, values in zip(matrix.rows, matrix.values, strict=True):
        for column, value in zip(matrix.columns, values, strict=True):
            of = " ".join(matrix.of)
            yield Row(bridge, matrix.score, of, row=row, column=column, value=value, chance=matrix.chance)


def histogram_rows(bridge: str, histogram: Histogram) -> Iterator[Row]:
    """One for every bin of every group."""
    for group, counts in histogram.counts.items():
        for low, high, count in zip(histogram.edges[:-1], histogram.edges[1:], counts, strict=True):
            bin = f"{low:.6g} to {high:.6g}"
            yield Row(bridge, histogram.score, group, depth=histogram.depth, row=bin, value=count)


def words_rows(bridge: str, words: Words) -> Iterator[Row]:
    """One for every word of every group."""
    for group, said in words.said.items():
        for word, share in said:
            yield Row(bridge, words.score, group, depth=words.depth, row=word, value=share)


def view_rows(bridge: str, view: View) -> Iterator[Row]:
    """Two for every point."""
    for group, points in view.points.items():
        for place, point in enumerate(points):
            for column, value in zip("xy", point, strict=True):
                yield Row(bridge, view.method, group, depth=view.depth, row=str(place), column=column, value=value)


def write_csv(reports: Sequence[AlignmentReport], path: Path) -> None:
    """A row for every number, ``COLUMNS`` first; numbers in full, those that are not finite left empty.

    Raises:
        UserError: as ``Comparison``.
        OSError: it cannot be written; what stood there still does.
    """
    told = io.StringIO(newline="")
    writer = csv.writer(told)
    writer.writerow(COLUMNS)
    for report in Comparison(reports).reports:
        writer.writerows(_cells(each) for each in rows(report))
    write_whole(path, told.getvalue())


def _cells(row: Row) -> Iterable[str | float | None]:
    for name in COLUMNS:
        value = getattr(row, name)
        yield None if isinstance(value, float) and not isfinite(value) else value


def _numbers(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
