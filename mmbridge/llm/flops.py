"""The floating-point operations that training through a causal LM needs, as closed formulas.

Symbols: T positions of a sample, or of several that share a beginning; S of them predict a supervised token; R of them
learn, which is to say that something trainable stands at or before them; L layers of N multiply-adds a position in
their matrices; H heads of width dh. A multiply-add is two FLOPs. Of one frozen layer (the formulas of Kaplan et al.,
arXiv 2001.08361, with what freezing saves):

    forward     2·N·T  + 4·H·dh·reads              reads: pairs of a position and one that it attends to
    backward    2·N·R  + 4·H·dh·(asked + learnt)   asked: those of them whose asking position learns
    a matrix that trains      2·size·R more        learnt: those of them in which both do

What needs nothing:

- Padding, and positions after the last that predicts: T ends there.
- What samples share: texts about one medium need their common beginning once; and what every conversation of a stage
  begins with is constant while the LLM is frozen, and only attended to.
- The backward pass at text before the first medium, while the layers are frozen; and the whole of it for a sample of
  text alone. Once a layer trains, every position of it and of those above it learns.
- Pairs that the causal mask, or a sliding window, forbids.
- In the last layer, whatever is not a key or a value, at positions that predict nothing: q, o and the feed-forward
  matrices are counted at S positions, attention for S queries.
- The head at any but the S positions, and its weight's gradient while it is frozen.

Not counted: norms, activations, softmax, rotary tables, the loss, biases, the optimiser. Not taken off: in the lowest
layer, input gradients of positions that are not perceptual tokens. Matrices outside the layers (OPT's projections to
and from its embeddings) are counted at all T.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from mmbridge.llm.tree import Places
from mmbridge.llm.trim import position_wise
from mmbridge.matrices import matrices

if TYPE_CHECKING:
    from mmbridge.llm.model import LanguageModel


@dataclass(frozen=True, slots=True)
class Row:
    """What the LLM computes for one sample, or for a tree of several (``mmbridge.llm.tree``), position by position.

    ``reads`` (T,) how many positions each attends to, itself included, constant ones too; ``learns`` (T,) how many of
    them need a gradient, zero where the position itself needs none; ``predicting`` (S,) the positions that predict a
    supervised token, ascending, each once.
    """

    reads: Places
    learns: Places
    predicting: Places


@dataclass(frozen=True, slots=True)
class Work:
    """What the LLM goes through for a batch: ``positions``, and pairs of a query and a key that its kernel is given, in
    a layer and in the last one. A kernel that skips pairs the mask forbids does less."""

    positions: int
    pairs: int
    last_pairs: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """Multiply-adds a position: at every one ``always``, and ``asking`` only where the layer's output is read, each as
    (all, those in matrices that train); ``queries`` likewise, but executed everywhere, being of one matrix with keys.
    ``window``: of its attention, zero where there is none. ``opened``: something trains in it or below."""

    always: tuple[int, int]
    asking: tuple[int, int]
    queries: int
    window: int
    opened: bool
    last: bool


class LanguageModelFlops:
    """Reads a language model's layers once; what is frozen and what trains must be settled by then.

    ``attention`` is H·dh, ``keys_values`` the multiply-adds a position in a layer's key and value projections.
    """

    def __init__(self, llm: "LanguageModel") -> None:
        config: Any = llm.model.config.get_text_config(decoder=True)
        heads: int = config.num_attention_heads
        head_width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        groups: int = getattr(config, "num_key_value_heads", None) or heads
        self.attention = heads * head_width
        self.keys_values = 2 * config.hidden_size * groups * head_width
        blocks = self._read(llm, config)
        self._layers = Counter(blocks)
        self._blocks = blocks[1:]  # without what stands outside of them
        self._final = [[*matrices(layer)][-1].size for layer in llm.layers]
        self._head = sum(matrix.size for matrix in matrices(llm.head))
        self._head_trains = any(matrix.trains for matrix in matrices(llm.head))

    def __call__(self, row: Row) -> int:
        """FLOPs of a training step over one row: forward, and backward to whatever trains."""
        body = sum(count * self._of_layer(layer, row) for layer, count in self._layers.items())
        last = next(layer for layer in self._layers if layer.last)
        learning = int((_learns(last, row)[row.predicting] > 0).sum())
        head = 2 * self._head * (len(row.predicting) * (1 + self._head_trains) + learning)
        return body + head

    def executed(self, rows: Sequence[Row], work: Work, recomputed: int = 0, *, flows: bool = False) -> int:
        """FLOPs of a batch of these rows when it is computed so, whether anybody needs them or not.

        Args:
            recomputed: how many blocks go forward a second time in the backward pass, up to their last matrix, whose
                output the backward pass does not read. (Where a block ends in a norm, as OPT-350m's do, it does read
                it: that matrix is not counted then.)
            flows: whether a gradient goes back through all of it though no row learns.
        """
        asked, total = sum(len(row.predicting) for row in rows), 0
        flows = flows or any(bool(row.learns.any()) for row in rows)
        for layer, count in self._layers.items():
            back = flows or layer.opened
            products = _products(layer.always, work.positions, back * work.positions)
            products += _products(layer.asking, asked, back * asked)
            products += _products((layer.queries, 0), work.positions, back * work.positions)
            pairs = 0 if not layer.window else work.last_pairs if layer.last else work.pairs
            total += 2 * count * (products + 2 * self.attention * pairs * (1 + 2 * back))
        for layer, final in zip(self._blocks[:recomputed], self._final, strict=False):
            if flows or layer.opened:
                products = _products(layer.always, work.positions, 0) - final * work.positions
                total += 2 * (products + 2 * self.attention * work.pairs)
        return total + 2 * self._head * asked * (1 + self._head_trains + back)

    def heard(self, lengths: Sequence[int], told: int) -> int:
        """FLOPs of going forward over texts that stand alone, up to the head, which does not run.

        Args:
            lengths: positions of each, of which the first few are read by the others alone.
            told: positions whose last states are read, of all texts together.
        """
        total = 0
        for layer, count in self._layers.items():
            read = told if layer.last else sum(lengths)
            places = sum(lengths) * layer.always[0] + read * (layer.asking[0] + layer.queries)
            total += count * (places + 2 * self.attention * sum(_pairs(each, layer.window) for each in lengths))
        last = next(layer for layer in self._layers if layer.last)
        silent = sum(lengths) - told  # each at the beginning of its text, and attending to one position
        return 2 * (total - 2 * self.attention * silent * (last.window > 0))

    def heard_padded(self, rows: int, width: int) -> int:
        """The same as it is executed: so many rows of one width, every position of them in every layer."""
        total = 0
        for layer, count in self._layers.items():
            places = layer.always[0] + layer.asking[0] + layer.queries
            total += count * rows * (width * places + 2 * self.attention * (layer.window > 0) * width**2)
        return 2 * total

    def _of_layer(self, layer: _Layer, row: Row) -> int:
        reads, learns = row.reads.clip(max=layer.window), _learns(layer, row).clip(max=layer.window)
        learning = int((learns > 0).sum())
        products = _products(layer.always, len(reads), learning)
        if layer.last:
            reads, learns = reads[row.predicting], learns[row.predicting]
            learning = int((learns > 0).sum())
            products += _products(layer.asking, len(reads), learning)
            products += _products((layer.queries, 0), len(reads), learning)
        pairs = int(reads.sum() + reads[learns > 0].sum() + learns.sum())
        return 2 * (products + 2 * self.attention * pairs)

    def _read(self, llm: "LanguageModel", config: Any) -> list[_Layer]:
        opened = any(parameter.requires_grad for parameter in llm.model.get_input_embeddings().parameters())
        inside = {id(module) for part in (llm.layers, llm.head) for module in part.modules()}
        leaves = (each for each in llm.model.modules() if id(each) not in inside and not [*each.children()])
        outside = _sizes(leaves)
        found = [_Layer(outside, (0, 0), 0, 0, opened or outside[1] > 0, last=False)]
        for index, (layer, window) in enumerate(zip(llm.layers, windows(config, len(llm.layers)), strict=True)):
            opened = opened or any(parameter.requires_grad for parameter in layer.parameters())
            last = index == len(llm.layers) - 1
            always, asking = _sizes([layer]), _sizes(position_wise(layer)) if last else (0, 0)
            always = always[0] - asking[0], always[1] - asking[1]
            # queries may come out of one matrix with the keys and values
            queries = max(0, always[0] - always[1] - self.keys_values) if last else 0
            found.append(_Layer((always[0] - queries, always[1]), asking, queries, window, opened, last))
        return found


def _products(sizes: tuple[int, int], positions: int, learning: int) -> int:
    """Multiply-adds of matrices, forward and backward."""
    every, trained = sizes
    return every * (positions + learning) + trained * learning


def _pairs(length: int, window: int) -> int:
    """Of a position and one that it attends to, itself included, in a text that stands alone."""
    return int((np.arange(length) + 1).clip(max=window).sum())


def _sizes(modules: Iterable[nn.Module]) -> tuple[int, int]:
    """Multiply-adds a position in all matrices, and in those that train."""
    found = [matrix for module in modules for matrix in matrices(module)]
    return sum(matrix.size for matrix in found), sum(matrix.size for matrix in found if matrix.trains)


def _learns(layer: _Layer, row: Row) -> Places:
    """``row.learns`` for a layer: once something trains in it or below, every position learns."""
    return row.reads if layer.opened else row.learns


def windows(config: Any, count: int) -> list[int]:
    """How far back each layer attends, itself included."""
    everything = 2**62
    size = getattr(config, "sliding_window", None)
    if size is None or getattr(config, "use_sliding_window", True) is False:
        return [everything] * count
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return [size if kind == "sliding_attention" else everything for kind in kinds]
