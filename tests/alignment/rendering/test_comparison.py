"""Several bridges under one set of definitions, and as JSON."""

import json
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest

import mmbridge
from mmbridge.alignment.rendering.comparison import Comparison, Owned, most, over_depths, shares, to_json
from mmbridge.alignment.report import Matrix, Scalar
from mmbridge.errors import UserError
from mmbridge.evaluation.bootstrap import Estimate
from tests.alignment.rendering.made_up import DEFINITIONS, around, curve, report


def strict(text: str) -> Any:
    """Refuses NaN and infinities, which JSON does not have."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_has_each_definition_once_and_every_figure() -> None:
    only = {name: DEFINITIONS[name] for name in ("ima", "gap")}
    broken = Scalar("gap", ("image",), Estimate(nan, -inf, inf))
    reports = [
        replace(report("first"), definitions=only, matrices=(), histograms=(), scalars=(broken,)),
        report("桥", 0.0625),
    ]
    text = to_json(reports)
    told = strict(text)
    assert "桥" in text
    assert told["mmbridge"] == mmbridge.__version__
    assert told["definitions"] == reports[1].to_dict()["definitions"]
    assert list(told["definitions"]) == ["ima", "gap", "norm", "iou"]
    for each, found in zip(reports, told["bridges"], strict=True):
        wanted = each.to_dict()
        del wanted["definitions"]
        assert found == wanted
    assert told["bridges"][0]["scalars"][0]["value"] == [None, None, None]
    assert told["bridges"][1]["curves"][0]["values"][2] == [0.46875, 0.4375, 0.53125]


def test_one_score_with_two_definitions_is_an_error() -> None:
    other = DEFINITIONS | {"norm": replace(DEFINITIONS["norm"], unit="metres")}
    with pytest.raises(UserError, match="second: expected the definition of norm"):
        to_json([report("first"), replace(report("second"), definitions=other)])


def test_figures_of_one_kind_stand_together() -> None:
    comparison = Comparison([report("first"), report("second", 0.0625)])
    assert list(comparison.curves) == [("ima", ("image", "text"), "block"), ("ima", ("image", "text"), "attention")]
    second = comparison.curves["ima", ("image", "text"), "attention"][1]
    assert (second.number, second.bridge, second.figure.site) == (1, "second", "attention")
    assert [each.bridge for each in comparison.views["PCA"]] == ["first", "second"]
    assert comparison.groups == ["image", "text"]
    assert comparison.facts == {"data": ["scenes & more"], "samples": ["517"], "seconds": ["12.5", "12.5625"]}


def test_a_fact_that_only_some_tell_is_told_of_each() -> None:
    comparison = Comparison([report("first", about={"a": 1}), report("second", about={})])
    assert comparison.facts == {"a": ["1", "–"]}


def test_a_mean_stands_beside_the_means_of_control_and_chance() -> None:
    mean = over_depths(curve([0.25, 0.75]))
    assert mean.value == around(0.5)
    assert mean.control is not None
    assert mean.control.value == 0.25
    assert mean.chance == -0.25
    bare = over_depths(replace(curve([0.25]), control=(), chance=()))
    assert (bare.control, bare.chance) == (None, None)


def test_shares_add_up_and_colours_end_at_the_largest() -> None:
    assert shares([1.0, 3.0, 4.0]) == [0.125, 0.375, 0.5]
    assert shares([0.0, 0.0]) == [0.0, 0.0]
    matrix = Matrix("iou", (), ("r",), ("a", "b", "c"), ((0.5, -0.75, nan),))
    assert most([Owned(0, "x", matrix)]) == 0.75
    assert most([Owned(0, "x", replace(matrix, values=((0.0, nan, inf),)))]) == 1.0
