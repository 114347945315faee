"""The X-Former against its equations in NumPy, and its gradients against a loop; two encoders that come apart."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor, nn

from mmbridge.connectors.base import Words
from mmbridge.connectors.config import ConnectorConfig
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.xformer import Details, XFormer
from mmbridge.encoders.base import EncoderFacts, Features, Grid, Tiling
from mmbridge.errors import RecipeError
from tests.connectors.qformers import FEATURES, QUERIES, SMALL, WIDTH, pictures, shake
from tests.connectors.samples import facts, features
from tests.connectors.test_config import build
from tests.connectors.xformers import DETAILS, xformer

Numbers = NDArray[np.float64]
SQUARE, TILED = Grid(1, 4, 4), Tiling(rows=2, columns=1, height=90, width=40)
SMALL_XFORMER: dict[str, Any] = {"kind": "xformer", "qformer": SMALL | {"dropout": 0.0, "text": None}, "heads": 2}


def numbers(module: nn.Module) -> dict[str, Numbers]:
    return {name: each.detach().double().numpy() for name, each in module.named_parameters()}


def linear(weights: dict[str, Numbers], name: str, values: Numbers) -> Numbers:
    return np.asarray(values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def normed(weights: dict[str, Numbers], name: str, values: Numbers) -> Numbers:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(values.var(-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def layer(weights: dict[str, Numbers], name: str, asking: Numbers, told: Numbers, heads: int) -> Numbers:
    """One view: (Q, A) and (K, B) to (Q, A), an attention and a feed-forward, head by head and place by place."""
    query = linear(weights, f"{name}.query", asking)
    key, value = linear(weights, f"{name}.key", told), linear(weights, f"{name}.value", told)
    size, found = query.shape[1] // heads, np.zeros_like(query)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for place in range(len(asking)):
            scores = np.array([query[place, own] @ each / np.sqrt(size) for each in key[:, own]])
            shares = np.exp(scores - scores.max())
            found[place, own] = (shares / shares.sum()) @ value[:, own]
    states = normed(weights, f"{name}.norm", asking + linear(weights, f"{name}.out", found))
    inside = linear(weights, f"{name}_feed.up", states)
    inside = inside * (1 + erf(inside / np.sqrt(2))) / 2
    return normed(weights, f"{name}_feed.norm", states + linear(weights, f"{name}_feed.down", inside))


@pytest.mark.proof("xformer", against="its two cross-attentions in NumPy, head by head and place by place")
@pytest.mark.parametrize("lengths", [(17, 17, 17), (17, 3, 9)], ids=["full", "ragged"])
def test_dual_cross_attention(lengths: tuple[int, ...]) -> None:
    """Z_q by the Q-Former, which is held elsewhere; M' = CA(M, Z_q); Z' = CA(Z_q, M')."""
    made = xformer(heads=2)
    first, mask = pictures(16, 16, 16)
    second, real = pictures(*lengths, width=DETAILS, seed=1)
    second = second.masked_fill(~real[..., None], float("nan"))
    grids, tilings = (SQUARE,) * 3, (None,) * 3
    with torch.no_grad():
        queries = made.qformer(Features(first, mask, grids, tilings)).values.double().numpy()
        found = made(Features(first, mask, grids, tilings), Features(second, real, grids, tilings, 1))
        details = made.details(second, real)
        enriched = made.dual.enriched(details.values, torch.from_numpy(queries).float())
    weights = numbers(made.dual)
    for view, length in enumerate(lengths):
        own = second[view, :length].double().numpy()
        more = layer(weights, "enriching", own, queries[view], heads=2)
        expected = layer(weights, "reading", queries[view], more, heads=2)
        assert np.abs(enriched[view, :length].numpy() - more).max() <= 1e-5
        assert np.abs(found.values[view].numpy() - expected).max() <= 1e-5
        assert np.abs(expected - queries[view]).max() > 0.1
    assert bool(found.mask.all())
    assert (found.grids, found.prefix) == ((Grid(1, 1, QUERIES),) * 3, 0)


def slow(dual: nn.Module, name: str, asking: Tensor, told: Tensor, heads: int) -> Tensor:
    """The same of torch's numbers, one head and place at a time, for its own gradients."""
    part: Any = dual.get_submodule(name)
    feed: Any = dual.get_submodule(f"{name}_feed")
    query, key, value = part.query(asking), part.key(told), part.value(told)
    size, rows = query.shape[1] // heads, []
    for place in range(len(asking)):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            shares = torch.stack([query[place, own] @ each[own] / size**0.5 for each in key]).softmax(0)
            parts.append(sum((share * each[own] for share, each in zip(shares, value, strict=True)), torch.zeros(())))
        rows.append(torch.cat(parts))
    states = part.norm(asking + part.out(torch.stack(rows)))
    out: Tensor = feed.norm(states + feed.down(nn.functional.gelu(feed.up(states))))
    return out


def test_gradients_are_those_of_a_loop() -> None:
    made = xformer(heads=2).dual
    queries = torch.randn(2, QUERIES, WIDTH, generator=torch.Generator().manual_seed(2))
    values, mask = pictures(7, 4, width=DETAILS)
    weigh = torch.randn(queries.shape, generator=torch.Generator().manual_seed(3))
    gradients = []
    for fused in (True, False):
        asking = queries.clone().requires_grad_()
        made.zero_grad()
        if fused:
            found = made(asking, Details(values.masked_fill(~mask[..., None], 0), mask[:, None, None]))
        else:
            rows = []
            for view, length in enumerate((7, 4)):
                enriched = slow(made, "enriching", values[view, :length], asking[view], heads=2)
                rows.append(slow(made, "reading", asking[view], enriched, heads=2))
            found = torch.stack(rows)
        torch.autograd.backward((found * weigh).sum())
        gradients.append([each.grad.clone() for each in (asking, *made.parameters()) if each.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == 1 + len(list(made.parameters()))
    for own, other in zip(*gradients, strict=True):
        assert (own - other).norm() <= 1e-4 * other.norm() + 1e-5


def connector(**around: Any) -> Connector:
    sources = EncoderFacts(FEATURES, SQUARE), EncoderFacts(DETAILS, Grid(1, 3, 3), 1)
    made = build(*sources, resampler=SMALL_XFORMER, **around)
    shake(made)
    return made


def views(*tilings: Tiling | None, seed: int = 0) -> tuple[Features, Features]:
    count = sum(1 if each is None else each.views for each in tilings)
    return (
        features(*[SQUARE] * count, width=FEATURES, tilings=tilings, seed=seed),
        features(*[Grid(1, 3, 3)] * count, width=DETAILS, prefix=1, tilings=tilings, seed=seed + 1),
    )


def test_encoders_come_apart() -> None:
    """Of other grids, widths and prefixes; both are read, and each by its own part alone."""
    made = connector()
    first, second = views(None, None)
    found = made(first, second)
    assert found.values.shape == (2, QUERIES, 10)
    assert made.sources == (EncoderFacts(FEATURES, SQUARE), EncoderFacts(DETAILS, Grid(1, 3, 3), 1))
    other, another = views(None, None, seed=5)
    assert not torch.allclose(made(other, second).values, found.values, atol=1e-3)
    assert not torch.allclose(made(first, another).values, found.values, atol=1e-3)


@pytest.mark.parametrize("around", [{}, {"end_token": True, "newline": True, "position": "learned"}])
def test_lengths_are_known_beforehand(around: dict[str, Any]) -> None:
    made = connector(**around)
    found = made(*views(None, TILED))
    assert found.mask.sum(1).tolist() == [made.length(None), made.length(TILED)]


def test_encoders_that_cut_media_differently() -> None:
    first, _ = views(None, None, None)
    _, second = views(TILED)
    with pytest.raises(
        RecipeError, match=r"^connectors\.image\.encoders: expected encoders that cut a medium into the"
    ):
        connector()(first, second)


def test_what_is_not_real_says_nothing() -> None:
    """Padding behind the second encoder's tokens holds NaN; a view of which it has none is not real."""
    made = connector()
    first = features(SQUARE, SQUARE, width=FEATURES)
    second = features(Grid(1, 3, 3), Grid(1, 2, 2), width=DETAILS, prefix=1)
    whole = made(first, second)
    torch.autograd.backward(whole.values.sum())
    assert all(bool(each.grad.isfinite().all()) for each in made.parameters() if each.grad is not None)
    alone = made(
        Features(first.values[1:], first.mask[1:], first.grids[1:], (None,)),
        Features(second.values[1:, :5], second.mask[1:, :5], second.grids[1:], (None,), 1),
    )
    assert (alone.values[0] - whole.values[1]).abs().max() <= 1e-5
    nothing = Features(second.values, second.mask & torch.tensor([[True], [False]]), second.grids, second.tilings, 1)
    assert made(first, nothing).mask.any(1).tolist() == [True, False]
    assert bool(made(first, nothing).values.isfinite().all())


def test_parameters_are_about_as_many_as_published() -> None:
    """About 20 M beside the 108 M of the Q-Former and the map, between EVA-CLIP-g, MAE's ViT-H and OPT-6.7B."""
    config = ConnectorConfig.model_validate(
        {"encoders": ["clip", "mae"], "resampler": {"kind": "xformer"}, "projector": {"kind": "linear"}}
    )
    sources = [EncoderFacts(1408, Grid(1, 16, 16), 1), EncoderFacts(1280, Grid(1, 16, 16), 1)]
    with torch.device("meta"):
        made = config.build(sources, Words(4096))
    assert isinstance(made.resampler, XFormer)
    added = sum(each.numel() for each in made.resampler.dual.parameters())
    total = sum(each.numel() for each in made.parameters())
    attentions = 2 * 1280**2 + 2 * 768 * 1280 + 4 * 1280 + 2 * 768**2 + 2 * 1280 * 768 + 4 * 768
    feeds = 2 * 1280 * 3072 + 3072 + 1280 + 2 * 768 * 3072 + 3072 + 768
    assert added == attentions + feeds + 4 * 1280 + 4 * 768
    assert (round((total - added) / 1e6), round(added / 1e6)) == (108, 21)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"encoders": ["one"]}, "encoders: expected two for resampler xformer, found 1"),
        ({"encoders": ["one", "two", "three"]}, "encoders: expected two for resampler xformer, found 3"),
        ({"resampler": SMALL_XFORMER | {"heads": 3}}, "heads: expected a divisor of qformer.width 32, found 3"),
    ],
)
def test_what_cannot_be_described(options: dict[str, Any], line: str) -> None:
    whole = {"encoders": ["one", "two"], "resampler": SMALL_XFORMER, "projector": {"kind": "linear"}} | options
    with pytest.raises(ValueError, match=line):
        ConnectorConfig.model_validate(whole)


def test_heads_that_do_not_divide_the_second_encoder() -> None:
    with pytest.raises(RecipeError) as caught:
        build(facts(SQUARE), facts(SQUARE, 6), resampler=SMALL_XFORMER | {"heads": 4})
    line = "connectors.image.resampler.heads: expected a divisor of 6, the width of the second encoder, found 4"
    assert str(caught.value) == line
