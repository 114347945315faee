"""Weight masks of an LLM by what its weights score: Wanda's score, their magnitude, or chance.

A Simple and Effective Pruning Approach for Large Language Models
Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter, arXiv 2306.11695

Weights are compared within a row, that is, with those that make the same output, in every mask alike: a control differs
from what it controls in the scores alone. Among equals those of later inputs stay.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mmbridge.errors import UserError
from mmbridge.frozen import content_hash
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.weight_mask import WeightMask, linear_layers, matrix

Like = float | WeightMask
"""How many weights a mask drops: this share of every row, or in every row as many as another mask."""


def wanda(llm: LanguageModel, norms: Mapping[str, Tensor], like: Like, about: str = "wanda") -> WeightMask:
    """The weights that score highest by |W_oi| · ‖x_i‖₂.

    Args:
        norms: (in,), ‖x_i‖₂ of what each layer read (``mmbridge.alignment.weights.wanda``).
    """
    return _mask(llm, lambda name, weight: scores(weight, norms[name]), like, about)


def magnitude(llm: LanguageModel, like: Like) -> WeightMask:
    """The weights that are largest in magnitude."""
    return _mask(llm, lambda _, weight: weight.float().abs(), like, "magnitude")


def random(llm: LanguageModel, like: Like, seed: int = 0) -> WeightMask:
    """Weights by chance, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return _mask(llm, lambda _, weight: torch.rand(weight.shape, generator=generator), like, f"random, seed {seed}")


def scores(weight: Tensor, norms: Tensor) -> Tensor:
    """(out, in) in float32: Wanda's score of weights (out, in) that read inputs of norms (in,)."""
    return weight.float().abs() * norms


def highest(found: Tensor, counts: Tensor) -> Tensor:
    """(out, in), true at the ``counts`` (out,) highest of each row."""
    inputs = found.shape[1]
    order = found.sort(dim=1, stable=True).indices
    places = torch.arange(inputs, device=found.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return ranks >= inputs - counts.to(found.device)[:, None]


def kept(shape: torch.Size, sparsity: float) -> Tensor:
    """(out,), how many weights of each row of a matrix (out, in) stay at a sparsity; what is dropped is rounded down.

    Raises:
        UserError: the sparsity is none.
    """
    require_sparsity(sparsity)
    return torch.full((shape[0],), shape[1] - math.floor(round(sparsity * shape[1], 6)))


def require_sparsity(sparsity: float) -> None:
    """Raises:
    UserError: it is not a share of weights that leaves some.
    """
    if not 0 <= sparsity < 1:
        raise UserError("sparsity", f"expected a share of weights to drop, from 0 to below 1, found {sparsity:g}")


def _mask(llm: LanguageModel, score: Callable[[str, Tensor], Tensor], like: Like, about: str) -> WeightMask:
    found = {}
    for name, layer in linear_layers(llm.layers).items():
        weight = matrix(layer)
        counts = like.counts(name) if isinstance(like, WeightMask) else kept(weight.shape, like)
        found[name] = highest(score(name, weight), counts).cpu()
    return WeightMask.of(content_hash(llm.config.located()), about, found)
