"""The floating-point operations that training through a causal LM needs, as closed formulas.

Symbols: T positions of a sample, S of them predict a supervised token, T0 stand before the first that anything
trainable reaches; L layers of N multiply-adds a position in their matrices; H heads of width dh. A multiply-add is two
FLOPs. Of one frozen layer, for one sample (the formulas of Kaplan et al., arXiv 2001.08361, with what freezing saves):

    forward     2·N·T        + 4·H·dh·pairs(0)             pairs(k): of a position that asks and one from k on, up to it
    backward    2·N·(T - T0) + 4·H·dh·(asked + pairs(T0))  asked: pairs whose asking position is T0 or later
    a matrix that trains      2·size·T more

What needs nothing:

- Padding, and positions after the last that predicts: T ends there.
- The backward pass at the T0 positions in front, text before the first medium, while the layers are frozen; and the
  whole of it for a sample of text alone. Once a layer trains, that layer and those above it have T0 = 0.
- Pairs that the causal mask, or a sliding window, forbids.
- In the last layer, whatever is not a key or a value, at positions that predict nothing: q, o and the feed-forward
  matrices are counted at S positions, attention for S queries. Those of them that train are counted at all T.
- The head at any but the S positions, and its weight's gradient while it is frozen.

Not counted: norms, activations, softmax, rotary tables, the loss, biases, the optimiser. Not taken off: in the lowest
layer, input gradients of positions that are not perceptual tokens; what samples that begin alike could share. Matrices
outside the layers (OPT's projections to and from its embeddings) are counted at all T.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mmbridge.llm.model import LanguageModel
from mmbridge.matrices import matrices


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as the LLM reads it, unpadded.

    ``predicting`` (S,) the positions that predict a supervised token, ascending; ``first`` the first position whose
    input embedding needs a gradient, ``None`` where none does.
    """

    predicting: NDArray[np.int64]
    first: int | None

    @property
    def length(self) -> int:
        """T: the positions up to the last that predicts."""
        return int(self.predicting[-1]) + 1 if len(self.predicting) else 0


@dataclass(frozen=True, slots=True)
class _Layer:
    """Multiply-adds a position: at every one ``always`` (``trained`` of them in matrices that train), and ``asking``
    only where the layer's output is read. ``opened``: something trains in it or below. ``window``: of its attention."""

    always: int
    trained: int
    asking: int
    window: int
    opened: bool
    last: bool


class LanguageModelFlops:
    """Reads a language model's layers once; what is frozen and what trains must be settled by then.

    ``attention`` is H·dh, ``keys_values`` the multiply-adds a position in a layer's key and value projections.
    """

    def __init__(self, llm: LanguageModel) -> None:
        config: Any = llm.model.config.get_text_config(decoder=True)
        heads: int = config.num_attention_heads
        head_width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        groups: int = getattr(config, "num_key_value_heads", None) or heads
        self.attention = heads * head_width
        self.keys_values = 2 * config.hidden_size * groups * head_width
        self._layers = Counter(self._read(llm, config))
        self._head = sum(matrix.size for matrix in matrices(llm.head))
        self._head_trains = any(matrix.trains for matrix in matrices(llm.head))

    def __call__(self, row: Row) -> int:
        """FLOPs of a training step over one sample: forward, and backward to whatever trains."""
        if not row.length:
            return 0
        body = sum(count * self._of_layer(layer, row) for layer, count in self._layers.items())
        last = next(layer for layer in self._layers if layer.last)
        learning = int((row.predicting >= _start(last, row)).sum())
        head = 2 * self._head * (len(row.predicting) * (1 + self._head_trains) + learning)
        return body + head

    def _of_layer(self, layer: _Layer, row: Row) -> int:
        length, start, window = row.length, _start(layer, row), layer.window
        products = layer.always * (2 * length - start) + layer.trained * (length - start)
        if layer.last:
            ends = row.predicting + 1
            learning = ends[ends > start]
            products += layer.asking * (len(ends) + len(learning))
            pairs = int(ends.clip(max=window).sum() + learning.clip(max=window).sum())
            pairs += int((learning - start).clip(max=window).sum())
        else:
            pairs = 2 * _pairs(length, window) - _pairs(start, window) + _pairs(length - start, window)
        return 2 * (products + 2 * self.attention * pairs)

    def _read(self, llm: LanguageModel, config: Any) -> list[_Layer]:
        opened = any(parameter.requires_grad for parameter in llm.model.get_input_embeddings().parameters())
        inside = {id(module) for part in (llm.layers, llm.head) for module in part.modules()}
        leaves = (each for each in llm.model.modules() if id(each) not in inside and not [*each.children()])
        frozen, trained = _sizes(leaves)
        found = [_Layer(frozen + trained, trained, 0, 0, opened or trained > 0, last=False)]
        for index, (layer, window) in enumerate(zip(llm.layers, _windows(config, len(llm.layers)), strict=True)):
            opened = opened or any(parameter.requires_grad for parameter in layer.parameters())
            frozen, trained = _sizes([layer])
            last = index == len(llm.layers) - 1
            asking = max(0, frozen - self.keys_values) if last else 0
            found.append(_Layer(frozen - asking + trained, trained, asking, window, opened, last))
        return found


def _sizes(modules: Iterable[nn.Module]) -> tuple[int, int]:
    """Multiply-adds a position in matrices that are frozen, and in those that train."""
    found = [matrix for module in modules for matrix in matrices(module)]
    trained = sum(matrix.size for matrix in found if matrix.trains)
    return sum(matrix.size for matrix in found) - trained, trained


def _start(layer: _Layer, row: Row) -> int:
    """The first position at which a layer's backward pass is needed; T where it is needed nowhere."""
    return 0 if layer.opened else row.length if row.first is None else min(row.first, row.length)


def _pairs(length: int, window: int) -> int:
    """How many pairs of an asking position and one that it may attend to there are among ``length`` in a row."""
    short = min(length, window)
    return short * (short + 1) // 2 + (length - short) * window


def _windows(config: Any, count: int) -> list[int]:
    """How far back each layer attends, itself included."""
    everything = 2**62
    size = getattr(config, "sliding_window", None)
    if size is None or getattr(config, "use_sliding_window", True) is False:
        return [everything] * count
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return [size if kind == "sliding_attention" else everything for kind in kinds]
