"""Numbers as people read them; what is not finite is a dash."""

from math import isfinite

from mmbridge.evaluation.bootstrap import Estimate

NOTHING = "–"


def number(value: float | None, digits: int = 3) -> str:
    """So many decimals, or so many significant digits where those would show too few or too many of them."""
    if value is None or not isfinite(value):
        return NOTHING
    if value == 0 or 10**-digits <= abs(value) < 1000:
        return f"{value + 0.0:.{digits}f}"
    return f"{value:.{digits}g}"


def exact(value: float | None) -> str:
    """Six significant digits, for tables of data."""
    return NOTHING if value is None or not isfinite(value) else f"{value + 0.0:.6g}"


def spanned(estimate: Estimate | None) -> str:
    """``0.412 [0.398, 0.427]``, or the value alone where no interval is known."""
    if estimate is None or not isfinite(estimate.value):
        return NOTHING
    if not (isfinite(estimate.low) or isfinite(estimate.high)):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"
