"""Several bridges side by side: their figures by what they are of, under one set of definitions."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum, isfinite, nan
from typing import Generic, TypeVar

import mmbridge
from mmbridge.alignment.rendering.numerals import NOTHING
from mmbridge.alignment.report import AlignmentReport, Curve, Definition, Histogram, Matrix, Scalar, View
from mmbridge.errors import UserError
from mmbridge.evaluation.bootstrap import Estimate

Figure = TypeVar("Figure", Curve, Scalar, Matrix, Histogram, View)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Owned(Generic[Figure]):
    """A figure and the bridge whose it is; ``number`` counts bridges from 0."""

    number: int
    bridge: str
    figure: Figure


class Comparison:
    """Reports of bridges that are told together.

    Raises:
        UserError: there are none, two are of bridges of one name, or they define a score differently.
        KeyError: a figure whose score nothing defines.
    """

    def __init__(self, reports: Sequence[AlignmentReport]) -> None:
        if not reports:
            raise UserError("alignment", "expected at least one bridge, found none")
        names = [report.bridge for report in reports]
        for name in names:
            if names.count(name) > 1:
                raise UserError(name, "expected bridges of different names, found two of this one")
        self.reports = tuple(reports)
        self.definitions = _merged(reports)
        for report in reports:
            scored = (report.curves, report.scalars, report.matrices, report.histograms, report.words)
            for score in (figure.score for figures in scored for figure in figures):
                if score not in self.definitions:
                    raise KeyError(f"score {score!r} of {report.bridge!r} has no definition")

    @property
    def names(self) -> list[str]:
        """The bridges, in the order in which they are told."""
        return [report.bridge for report in self.reports]

    @cached_property
    def curves(self) -> dict[tuple[str, tuple[str, ...], str], list[Owned[Curve]]]:
        """By score, groups and site."""
        return self._by(lambda report: report.curves, lambda curve: (curve.score, curve.of, curve.site))

    @cached_property
    def scalars(self) -> dict[tuple[str, tuple[str, ...]], list[Owned[Scalar]]]:
        """By score and groups."""
        return self._by(lambda report: report.scalars, lambda scalar: (scalar.score, scalar.of))

    @cached_property
    def matrices(self) -> dict[tuple[str, tuple[str, ...]], list[Owned[Matrix]]]:
        """By score and groups."""
        return self._by(lambda report: report.matrices, lambda matrix: (matrix.score, matrix.of))

    @cached_property
    def histograms(self) -> dict[str, list[Owned[Histogram]]]:
        """By score."""
        return self._by(lambda report: report.histograms, lambda histogram: histogram.score)

    @cached_property
    def views(self) -> dict[str, list[Owned[View]]]:
        """By method."""
        return self._by(lambda report: report.views, lambda view: view.method)

    @cached_property
    def groups(self) -> list[str]:
        """Groups of states that histograms and views show, as they first come."""
        histograms = [group for owned in self.histograms.values() for each in owned for group in each.figure.counts]
        views = [group for owned in self.views.values() for each in owned for group in each.figure.points]
        return list(dict.fromkeys([*histograms, *views]))

    @cached_property
    def facts(self) -> dict[str, list[str]]:
        """What reports are about, by its name: once where it is the same of all bridges, else for each of them."""
        keys = dict.fromkeys(key for report in self.reports for key in report.about)
        told = {key: [str(report.about.get(key, NOTHING)) for report in self.reports] for key in keys}
        return {key: values[:1] if len(set(values)) == 1 else values for key, values in told.items()}

    def _by(
        self, figures: Callable[[AlignmentReport], Iterable[Figure]], key: Callable[[Figure], Key]
    ) -> dict[Key, list[Owned[Figure]]]:
        found: dict[Key, list[Owned[Figure]]] = {}
        for number, report in enumerate(self.reports):
            for figure in figures(report):
                found.setdefault(key(figure), []).append(Owned(number, report.bridge, figure))
        return found


def over_depths(curve: Curve) -> Scalar:
    """A curve's mean, beside the means of its control and of its chance."""
    control = curve.control_mean
    if control is None and curve.control:
        control = Estimate(_mean([each.value for each in curve.control]), nan, nan)
    chance = _mean(curve.chance) if curve.chance else None
    return Scalar(curve.score, curve.of, curve.mean, control, chance)


def most(matrices: Iterable[Owned[Matrix]]) -> float:
    """The largest finite number, whatever its sign: there the colours of heat maps end. 1 if there is none."""
    cells = (abs(value) for each in matrices for row in each.figure.values for value in row)
    return max(filter(isfinite, cells), default=0.0) or 1.0


def shares(counts: Sequence[float]) -> list[float]:
    """Of a histogram's counts (K,), each over their sum, so that groups of unequal sizes compare."""
    total = fsum(count for count in counts if isfinite(count)) or 1.0
    return [count / total for count in counts]


def to_json(reports: Sequence[AlignmentReport]) -> str:
    """What ``align --json`` writes: the version, every definition once, and the bridges without them.

    Raises:
        UserError: as ``Comparison``.
    """
    comparison = Comparison(reports)
    bridges = [report.to_dict() for report in comparison.reports]
    definitions: dict[str, object] = {}
    for bridge in bridges:
        definitions |= bridge.pop("definitions")
    told = {"mmbridge": mmbridge.__version__, "definitions": definitions, "bridges": bridges}
    return json.dumps(told, ensure_ascii=False, allow_nan=False)


def _merged(reports: Sequence[AlignmentReport]) -> Mapping[str, Definition]:
    found: dict[str, Definition] = {}
    for report in reports:
        for name, definition in report.definitions.items():
            if found.setdefault(name, definition) != definition:
                problem = f"expected the definition of {name} that {reports[0].bridge} and others have, found another"
                raise UserError(report.bridge, problem, "report on it by itself")
    return found


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
