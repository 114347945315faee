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

Not counted: norms, activations, softmax, rotary tables, the loss, biases, the optimiser. A layer is counted whole: that
the lowest layer's input gradient ends at perceptual tokens is not taken off. Samples are taken one by one: that work
could be shared by samples that begin alike is not either. Matrices outside the layers (OPT's projections to and from
its embeddings) are counted at all T.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        start = _start(layer, row)
        asking = row.predicting if layer.last else np.arange(row.length)
        learning = asking[asking >= start]
        always = layer.always * (2 * row.length - start) + layer.trained * (row.length - start)
        now_and_then = layer.asking * (len(asking) + len(learning))
        forward, asked = _pairs(asking, 0, layer.window), _pairs(learning, 0, layer.window)
        products = 2 * forward + 2 * asked + 2 * _pairs(learning, start, layer.window)
        return 2 * (always + now_and_then + self.attention * products)

    def _read(self, llm: LanguageModel, config: Any) -> list[_Layer]:
        opened = llm.model.get_input_embeddings().weight.requires_grad
        inside = {id(module) for part in (llm.layers, llm.head) for module in part.modules()}
        outside = [
            each for name, each in llm.model.named_modules() if id(each) not in inside and not [*each.children()]
        ]
        found = []
        size = sum(matrix.size for each in outside for matrix in matrices(each))
        trained = sum(matrix.size for each in outside for matrix in matrices(each) if matrix.trains)
        if size:
            found.append(_Layer(size, trained, 0, 0, opened or trained > 0, last=False))
        for index, (layer, window) in enumerate(zip(llm.layers, _windows(config, len(llm.layers)), strict=True)):
            opened = opened or any(parameter.requires_grad for parameter in layer.parameters())
            sizes = [(matrix.size, matrix.trains) for matrix in matrices(layer)]
            frozen, trained = (sum(size for size, trains in sizes if trains is kind) for kind in (False, True))
            last = index == len(llm.layers) - 1
            asking = max(0, frozen - self.keys_values) if last else 0
            found.append(_Layer(frozen - asking + trained, trained, asking, window, opened, last))
        return found


def _start(layer: _Layer, row: Row) -> int:
    """The first position at which a layer's backward pass is needed; T where it is needed nowhere."""
    return 0 if layer.opened else row.length if row.first is None else min(row.first, row.length)


def _pairs(asking: NDArray[np.int64], start: int, window: int) -> int:
    """How many pairs of an asking position and one from ``start`` on that it may attend to."""
    return int((asking + 1 - start).clip(max=window).sum())


def _windows(config: Any, count: int) -> list[int]:
    """How far back each layer attends, itself included."""
    everything = 2**62
    size = getattr(config, "sliding_window", None)
    if size is None or getattr(config, "use_sliding_window", True) is False:
        return [everything] * count
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * count
    return [size if kind == "sliding_attention" else everything for kind in kinds]
