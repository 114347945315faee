"""Cosines between each perceptual token and each token of text, of samples that match and of all with all.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (the similarity of tokens, in its modes max, min, median and max_mean)

A-score's cosine with the nearest token (Law of Vision Representation in MLLMs; Shijia Yang, Bohan Zhai, Quanzeng You,
Jianbo Yuan, Hongxia Yang, Chenfeng Xu, arXiv 2408.16357) is ``max_mean`` with an encoder's tokens in place of text.

Symbols: S samples, M perceptual tokens, R other samples, L tokens of text, D width; C (M, L) the cosines of one pair.

differs from the released code: padding never counts. That code averages over all pairs of samples, the diagonal of
``crossed`` included, and knows no control; here matching pairs can be had alone, beside pairs that do not match.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmbridge.alignment.clouds import AT_ONCE, blocks, finite, norms
from mmbridge.errors import DataError

Statistic = Literal["mean", "median", "max", "min", "max_mean"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


def matched(
    tokens: Tensor, mask: Tensor, text: Tensor, text_mask: Tensor, statistics: Sequence[Statistic] = STATISTICS
) -> dict[Statistic, Tensor]:
    """What C is like for each sample's tokens and its own text: (S,) by statistic.

    ``mean``, ``median`` (the mean of the middle two where their number is even), ``max`` and ``min`` are over all of C;
    ``max_mean`` is 1/M Σ_m max_l C[m, l]. Between −1 and 1; a token of no length has a cosine of 0 with all.
    Computed in float64 where the states are, else in float32, in blocks of ``AT_ONCE`` cosines, without gradients.

    Args:
        tokens: (S, M, D).
        mask: (S, M), true where a token is real; what the others hold, NaN included, reaches nothing.
        text: (S, L, D).
        text_mask: (S, L).
        statistics: those asked for. Only ``mean`` needs no cosine of its own: C's mean is the product of two means.

    Raises:
        DataError: a sample has no token on one side, or a real token is not finite.
    """
    assert len(tokens) == len(text), "every sample has both sides"
    left, right = _Side(tokens, mask, "perceptual tokens"), _Side(text, text_mask, "text tokens")
    found: dict[Statistic, list[Tensor]] = {each: [] for each in statistics if each != "mean"}
    if found:
        several = max(1, AT_ONCE // (mask.shape[1] * text_mask.shape[1]))
        for start in range(0, len(tokens), several):
            part = slice(start, start + several)
            cosines = left.units(part) @ right.units(part).mT
            for each, values in found.items():
                values.append(_statistic(each, cosines, mask[part], text_mask[part]))
    means = {"mean": (left.means() * right.means()).sum(-1).to(left.dtype)} if "mean" in statistics else {}
    return {each: means[each] if each == "mean" else torch.cat(found[each]) for each in statistics}


def crossed(
    tokens: Tensor, mask: Tensor, text: Tensor, text_mask: Tensor, statistics: Sequence[Statistic] = STATISTICS
) -> dict[Statistic, Tensor]:
    """The same for each sample's tokens and each sample's text: (S, R) by statistic, [i, j] of tokens i and text j.

    Its mean is the paper's score, its diagonal ``matched``, the rest the control: ``others``.

    Args:
        tokens, mask: (S, M, D) and (S, M).
        text, text_mask: (R, L, D) and (R, L), for which R need not be S.
        statistics: those asked for.

    Raises:
        DataError: as ``matched``.
    """
    left, right = _Side(tokens, mask, "perceptual tokens"), _Side(text, text_mask, "text tokens")
    shape = len(tokens), len(text)
    found = {each: torch.empty(shape, dtype=left.dtype, device=tokens.device) for each in statistics if each != "mean"}
    for rows, columns in _parts(*mask.shape, *text_mask.shape) if found else ():
        first, second = left.units(rows), right.units(columns)
        products = (first.flatten(0, 1) @ second.flatten(0, 1).mT).view(*first.shape[:2], *second.shape[:2])
        cosines = products.transpose(1, 2)
        for each, values in found.items():
            values[rows, columns] = _statistic(each, cosines, mask[rows, None], text_mask[None, columns])
    means = {"mean": (left.means() @ right.means().mT).to(left.dtype)} if "mean" in statistics else {}
    return {each: means[each] if each == "mean" else found[each] for each in statistics}


def shuffled(
    tokens: Tensor, mask: Tensor, text: Tensor, text_mask: Tensor, statistics: Sequence[Statistic] = STATISTICS
) -> dict[Statistic, Tensor]:
    """The control of ``matched``: the tokens of sample i beside the text of sample i − 1, the first beside the last's.

    Raises:
        DataError: as ``matched``, or there is one sample only.
    """
    _several(len(tokens))
    return matched(tokens, mask, text.roll(1, 0), text_mask.roll(1, 0), statistics)


def others(pairs: Tensor) -> Tensor:
    """(S,) of a matrix (S, S) by ``crossed``: the mean of each row off the diagonal, the control of its diagonal.

    Raises:
        DataError: there is one sample only.
    """
    _several(len(pairs))
    return (pairs.sum(1) - pairs.diagonal()) / (len(pairs) - 1)


def _several(samples: int) -> None:
    if samples < 2:
        raise DataError("control", f"expected at least 2 samples to shuffle, found {samples}", "measure more samples")


class _Side:
    """Sets of tokens, known to be fit for scoring."""

    def __init__(self, values: Tensor, mask: Tensor, what: str) -> None:
        if not len(values):
            raise DataError(what, "expected samples to score, found none")
        if len(empty := (~mask.any(1)).nonzero()):
            first = int(empty[0])
            raise DataError(what, f"expected some in every sample, found none in sample {first}", "leave it out")
        self._values, self._mask = values.detach(), mask
        self._lengths = finite(norms(values).where(mask, 0), what)
        self.dtype = torch.float64 if values.dtype == torch.float64 else torch.float32

    def units(self, part: slice) -> Tensor:
        """Tokens of some samples over their lengths, zeros at padding: (some, M, D)."""
        lengths = self._lengths[part, :, None].to(self.dtype).clamp(min=torch.finfo(self.dtype).tiny)
        return self._values[part].to(self.dtype).where(self._mask[part, :, None], 0) / lengths

    def means(self) -> Tensor:
        """(S, D) in float64: the mean of each sample's tokens over their lengths."""
        weights = (1 / self._lengths).where(self._mask & (self._lengths > 0), 0)
        found, start = [], 0
        for piece in blocks(self._values):
            part = slice(start, start := start + len(piece))
            found.append(weights[part, None] @ piece.where(self._mask[part, :, None], 0))
        return torch.cat(found)[:, 0] / self._mask.sum(1, keepdim=True)


def _parts(samples: int, tokens: int, texts: int, words: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of pairs of samples that have no more than ``AT_ONCE`` cosines, or are one pair."""
    columns = min(texts, max(1, AT_ONCE // (tokens * words)))
    rows = max(1, AT_ONCE // (tokens * words * columns))
    for i in range(0, samples, rows):
        for j in range(0, texts, columns):
            yield slice(i, i + rows), slice(j, j + columns)


def _statistic(statistic: Statistic, cosines: Tensor, mask: Tensor, text_mask: Tensor) -> Tensor:
    """(…) of cosines (…, M, L) where masks (…, M) and (…, L) are both true."""
    words = text_mask[..., None, :]
    if statistic == "median":
        known = cosines.where(mask[..., :, None] & words, torch.inf)
        return _median(known.flatten(-2), mask.sum(-1) * text_mask.sum(-1))
    if statistic == "min":
        ceiling = cosines.new_zeros(()).where(words, torch.inf)
        return (cosines + ceiling).amin(-1).where(mask, torch.inf).amin(-1)
    floor = cosines.new_zeros(()).where(words, -torch.inf)
    largest = (cosines + floor).amax(-1)
    if statistic == "max":
        return largest.where(mask, -torch.inf).amax(-1)
    assert statistic == "max_mean"
    return largest.where(mask, 0).sum(-1) / mask.sum(-1)


def _median(values: Tensor, counts: Tensor) -> Tensor:
    """(…) of the ``counts`` (…) least of values (…, n), which are overwritten."""
    if values.device.type == "cpu":
        values.numpy().sort()  # along the last axis; several times as fast as torch's sort or its median
    else:
        values = values.sort().values
    middle = torch.stack([(counts - 1) // 2, counts // 2], -1)
    return values.gather(-1, middle).mean(-1)
