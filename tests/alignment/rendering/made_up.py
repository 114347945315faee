"""Reports whose figures are easy to tell apart, for tests of how they are told."""

from math import nan

from mmbridge.alignment.report import AlignmentReport, Curve, Definition, Histogram, Matrix, Scalar, View, Words
from mmbridge.evaluation.bootstrap import Estimate

DEFINITIONS = {
    "ima": Definition("Alike", "cos(p, t) & more", "cosine, −1 to 1", "higher", "0", "pairs shuffled", "a <paper>"),
    "norm": Definition("Norm", "|x|", "length", "neither", "", "", "another"),
    "gap": Definition("Gap", "|p − t|", "distance", "lower", "", "mixed", "a third"),
    "iou": Definition("Shared", "|A ∩ B| / |A ∪ B|", "share, 0 to 1", "higher", "k / (2 − k)", "", "a fourth"),
}


def around(value: float, width: float = 0.03125) -> Estimate:
    """Low is nearer than high."""
    return Estimate(value, value - width, value + 2 * width)


def curve(values: list[float], of: tuple[str, ...] = ("image", "text"), site: str = "block") -> Curve:
    """With a control at half of each value and chance at −0.25."""
    return Curve(
        "ima",
        of,
        site,
        tuple(range(len(values))),
        tuple(around(value) for value in values),
        around(sum(values) / len(values) if values else nan),
        tuple(around(value / 2, 0.015625) for value in values),
        tuple(-0.25 for _ in values),
    )


def report(bridge: str = "first", shift: float = 0.0, **more: object) -> AlignmentReport:
    """One of every kind of figure; ``shift`` is added to values, and ``more`` takes the place of what it names."""
    values = [0.125 + shift, 0.3125 + shift, 0.40625 + shift, 0.71875 + shift]
    cells = ((0.8125, -0.4375 + shift), (0.0, nan))
    told: dict[str, object] = {
        "about": {"data": "scenes & more", "samples": 517, "seconds": 12.5 + shift},
        "curves": (curve(values), curve([value / 4 for value in values], site="attention")),
        "scalars": (Scalar("gap", ("image", "text"), around(0.8671875 + shift), around(0.0234375), 0.0078125),),
        "matrices": (Matrix("iou", ("image", "text"), ("block 1", "block 2"), ("q", "k"), cells, 0.34375),),
        "histograms": (Histogram("norm", 2, (0.0, 1.5, 4.0), {"image": (3.0, 9.0), "text": (6.0, 2.0)}),),
        "words": (Words("norm", 2, {"image": (("<red>", 0.5), (" a", 0.25)), "text": (("blue", 0.75),)}),),
        "views": (View("PCA", 2, {"image": ((-1.25, 0.5), (0.75, 2.125)), "text": ((3.0625, -2.0),)}),),
        "cost": {"default set": 1.1875, "mir": 1.4375},
    }
    return AlignmentReport(bridge, definitions=DEFINITIONS, **(told | more))  # type: ignore[arg-type]
