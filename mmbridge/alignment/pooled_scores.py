"""The optional scores that read the pooled states of stored pairs: centred cosines, neighbours, kernels, views.

Symbols: N pairs of a medium and text.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mmbridge.alignment.cka import cka
from mmbridge.alignment.clouds import varies
from mmbridge.alignment.ima import cosines
from mmbridge.alignment.lots import Lots, lots
from mmbridge.alignment.neighbours import cknna, likeness, neighbour_chance, overlaps
from mmbridge.alignment.parts import Of, Part, estimated_curve, resampled_curve
from mmbridge.alignment.report import Curve, Histogram, Matrix, Scalar, View, some
from mmbridge.alignment.resampled import Rows, several_without_some, without_some
from mmbridge.alignment.running import Side
from mmbridge.alignment.stored import StoredDepth
from mmbridge.errors import UserError
from mmbridge.evaluation.bootstrap import Estimate

Depths = Mapping[int, StoredDepth]

NEIGHBOURS = 10
"""k of mutual k-NN and CKNNA, or half of the samples where that is less."""
BINS = 40


def centred_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """IMA without what all samples of a side have in common, with perceptual tokens of the same depth and of the input,
    and how the cosines of pairs are spread."""
    first = next(iter(depths.values())).means(Side.PERCEPTUAL)
    for at in ("", "_input"):
        tables: dict[int, Tensor] = {}
        for depth, states in depths.items():
            text = states.means(Side.TEXT)
            perceptual = first if at else states.means(Side.PERCEPTUAL)
            if perceptual.shape == text.shape:
                tables[depth] = cosines(perceptual, text, centred=True)
        pairs, drawn = torch.stack([*tables.values()]), _every(depths)
        matched = torch.diagonal(pairs, dim1=-2, dim2=-1)
        yield resampled_curve(
            f"ima_centred{at}_matched", of, tables, drawn.means(matched), drawn.other_pairs(pairs), 0.0
        )
        if not at:
            yield from (_spread(depth, table) for depth, table in some([*tables.items()]))


def neighbour_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """Mutual nearest neighbours at the same depth and between all depths; the control has the texts shuffled."""
    count, order = _count(depths), _shuffled(_count(depths))
    k = min(NEIGHBOURS, count // 2)
    perceptual, text = ([likeness(states.means(side), k) for states in depths.values()] for side in Side)
    vary = [torch.tensor([varies(states.means(side)) for states in depths.values()]) for side in Side]
    known = vary[0][:, None] & vary[1]

    def table(rows: Rows, beside: Rows) -> Tensor:
        """(L, L), of some samples with the texts of others; NaN where states do not vary."""
        sides = [
            [each[numbers][:, numbers].topk(k).indices for each in alike]
            for alike, numbers in ((perceptual, rows), (text, beside))
        ]
        found = torch.stack([torch.stack([overlaps(one, other).mean() for other in sides[1]]) for one in sides[0]])
        return found.where(known, torch.nan)

    def found(rows: Rows) -> list[float]:
        """At every depth, in the mean over depths, the control of both, and the best of all pairs of depths."""
        own, shuffled = table(rows, rows), table(rows, order[rows].tolist()).diagonal()
        same = own.diagonal()
        best = own.where(known, 0.0).max()
        return torch.cat([same, same.nanmean()[None], shuffled, shuffled.nanmean()[None], best[None]]).tolist()

    *curves, best = several_without_some(found, count, highest=1.0)
    values, control = curves[: len(depths) + 1], curves[len(depths) + 1 :]
    chance, names = neighbour_chance(k, count), tuple(map(str, depths))
    level = (chance,) * len(depths)
    same, beside = tuple(values[:-1]), tuple(control[:-1])
    yield Curve("mutual_knn", of, "block", tuple(depths), same, values[-1], beside, level, control[-1])
    whole = table([*range(count)], [*range(count)])
    yield Matrix("mutual_knn", of, names, names, tuple(tuple(row) for row in whole.tolist()), chance)
    yield Scalar("mutual_knn_best", of, best, chance=chance)


def kernel_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """CKA and CKNNA at the same depth; the control has the texts shuffled."""
    count = _count(depths)
    k, order = min(NEIGHBOURS, count // 4), _shuffled(count)
    yield _kernel_curve("cka", cka, depths, of, order, chance=0.0)
    yield _kernel_curve("cknna", lambda one, other: cknna(one, other, k), depths, of, order)


def _kernel_curve(
    name: str,
    score: Callable[[Tensor, Tensor], float],
    depths: Depths,
    of: Of,
    order: Tensor,
    chance: float | None = None,
) -> Curve:
    def estimated(one: Tensor, other: Tensor) -> Estimate:
        return without_some(lambda rows: score(one[rows], other[rows]), len(one), highest=1.0)

    sides = {depth: [states.means(side) for side in Side] for depth, states in depths.items()}
    values = {depth: estimated(one, other) for depth, (one, other) in sides.items()}
    control = [estimated(one, other[order]) for one, other in sides.values()]
    return estimated_curve(name, of, values, control, chance)


def pca_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """Both sides together in the two directions in which they vary most, at the input, midway and at the end."""
    for depth, states in some([*depths.items()]):
        points = _centred(torch.cat([states.means(side) for side in Side]))
        left, sizes, _ = torch.linalg.svd(points, full_matrices=False)
        share = (sizes.square() / sizes.square().sum())[:2].tolist()
        method = f"PCA: {share[0]:.0%} and {share[1]:.0%} of the variance"
        yield _view(method, depth, of, left[:, :2] * sizes[:2])


def tsne_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """The same by t-SNE, which keeps neighbours and nothing else: distances between clusters mean little.

    Raises:
        UserError: scikit-learn is not there.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UserError("--score tsne", "expected scikit-learn, found none", "pip install mmbridge[plot]") from None
    for depth, states in some([*depths.items()]):
        points = torch.cat([states.means(side) for side in Side]).numpy()
        perplexity = min(30.0, (len(points) - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, random_state=42, init="pca").fit_transform(points)
        yield _view(f"t-SNE, perplexity {perplexity:g}", depth, of, torch.from_numpy(flat))


def _count(depths: Depths) -> int:
    return len(next(iter(depths.values())).pooled[0])


def _every(depths: Depths) -> Lots:
    return lots(torch.ones(_count(depths), dtype=torch.float64))


def _shuffled(count: int) -> Tensor:
    """(N,) whose text stands beside each medium: that of another, half of them away."""
    return torch.arange(count).roll(count // 2)


def _view(method: str, depth: int, of: Of, points: Tensor) -> View:
    halves = [tuple((float(x), float(y)) for x, y in half) for half in points.chunk(2)]
    return View(method, depth, dict(zip(of, halves, strict=True)))


def _centred(points: Tensor) -> Tensor:
    return points - points.mean(dim=0)


def _spread(depth: int, cosines: Tensor) -> Histogram:
    """Of matched pairs and of all others."""
    edges = np.linspace(-1, 1, BINS + 1)
    own = torch.eye(len(cosines), dtype=torch.bool)
    sides = {"matched": cosines[own].numpy(), "other pairs": cosines[~own].numpy()}
    counts = {name: tuple(map(float, np.histogram(each, edges)[0] / max(1, len(each)))) for name, each in sides.items()}
    return Histogram("ima_centred_matched", depth, tuple(map(float, edges)), counts)
