"""What every vision encoder does, whatever library its model comes from.

Symbols: V views, C channels, H×W pixels, N tokens of a view, D the model's width, D_enc the width of what is tapped.

The library's own forward runs; hidden states are picked up as they enter and leave its blocks. Blocks behind the
deepest tap are dropped after loading: what they compute would be thrown away. What an encoder is (grid, width, tokens
before the grid) is read from one pass of a blank image through its first block, not from its name or configuration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn

from mmbridge.encoders.attention import AttentionRows
from mmbridge.encoders.base import EncoderFacts, Features, Grid, Prepared, Tiling, Views
from mmbridge.encoders.config import VisionConfig
from mmbridge.encoders.fitting import Fit
from mmbridge.encoders.preprocessing import Pixels, prepared_by
from mmbridge.encoders.stored import together
from mmbridge.errors import RecipeError
from mmbridge.frozen import freeze, reading
from mmbridge.matrices import matrices

_CLS_NAMES = {"cls_token", "class_token", "class_embedding"}  # what the three libraries call the parameter


@dataclass(frozen=True, slots=True)
class Tower:
    """A loaded vision model and what tapping it needs to know.

    ``blocks`` and ``norm`` are names of submodules of ``model``, ``norm`` empty where there is none; ``own`` is the
    library's own preprocessing, image to (C, H, W), and ``fit`` what it seems to do before it normalises.
    """

    folder: Path
    library: str
    model: nn.Module
    blocks: str
    norm: str
    own: Callable[[Image.Image], Tensor]
    fit: Fit | None
    pixels: Pixels


class VisionEncoder(nn.Module, ABC):
    """A frozen vision transformer: images in, features out.

    ``facts`` says what comes out of it, ``cells`` how many tokens its grid has inside; ``folder`` is where its files
    are; ``prepare`` turns an image into views without the model, so that it can be handed to loader workers.
    """

    medium: Literal["image"] = "image"

    def __init__(self, config: VisionConfig, tower: Tower) -> None:
        super().__init__()
        self.folder, self.tokens, self.norm = tower.folder, config.tokens, config.norm
        self._library, self._block_list, self._norm_name = tower.library, tower.blocks, tower.norm
        self.model = freeze(tower.model.to(getattr(torch, config.dtype)))
        self.depth = len(self.blocks)  # before the cut: layers are counted in the whole encoder
        self.taps = self._resolved(config.layer)
        if config.norm and not tower.norm:
            raise RecipeError(self.folder, "expected a final norm to apply, found none", "leave out norm")
        self.prepare = prepared_by(tower.own, tower.fit, tower.pixels, config, self.folder)
        whole = self.blocks
        self._keep(whole[:1])
        grid, width, self._prefix, pooled = self._read()
        self._keep(whole[: max(1, *self.taps)])
        self.facts = self._facts(grid, width, pooled)

    @abstractmethod
    def run(self, inputs: Tensor) -> None:
        """Sends (V, C, H, W) through the blocks; what stands behind them may be left out."""

    @abstractmethod
    def pool(self, inputs: Tensor) -> Tensor | None:
        """(V, C, H, W) to the library's pooled output (V, D_enc), or ``None`` where it has none."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever the parent does."""
        return super().train(False)

    def encode(self, media: Sequence[Prepared]) -> Features:
        """Features of several media, in order. The model runs over the views of those not encoded before, as the rows
        of one batch; where there are none, it does not run."""
        views = [one for one in media if isinstance(one, Views)]
        live: Features | None = None
        if views:
            live = self(torch.cat([one.inputs for one in views]), tuple(one.tiling for one in views))
        if live is not None and len(views) == len(media):
            return live
        return together(media, live, next(self.model.parameters()), self.facts.prefix)

    @torch.no_grad()
    def forward(self, inputs: Tensor, tilings: tuple[Tiling | None, ...]) -> Features:
        """(V, C, H, W) on any device to features in the encoder's own dtype; every token is real.

        Inputs in uint8 are normalised first; in any other dtype they are taken to be so already.
        """
        inputs = self._placed(inputs)
        if self.tokens == "pooled":
            values = self.pool(inputs)
            assert values is not None  # asked for at build time
            values = values[:, None]  # (V, 1, D_enc)
        else:
            values = self._chosen(self._tapped(inputs))  # (V, N, D_enc)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Features(values, mask, (self.facts.grid,) * len(values), tilings, self.facts.prefix)

    @torch.no_grad()
    def attention_rows(self, inputs: Tensor, layer: int, queries: Sequence[int]) -> Tensor:
        """What chosen tokens attend to, without the whole map.

        Args:
            inputs: (V, C, H, W).
            layer: the block, counted as in transformers' ``attentions``: 0 the first, -1 the whole encoder's last.
            queries: tokens counted from the start of the encoder's sequence, CLS first where there is one.

        Returns:
            (V, heads, len(queries), N) softmaxed over all N tokens of the sequence.

        Raises:
            RecipeError: no such block or token, a block behind the deepest tap, or attention of an unknown form.
        """
        kept, count = len(self.blocks), self.sequence
        index = layer if layer >= 0 else self.depth + layer
        if not 0 <= index < kept:
            problem = f"expected a block from 0 to {kept - 1}, the last that the taps need, found {layer}"
            raise RecipeError(self.folder, problem, "tap a deeper layer" if 0 <= index < self.depth else "")
        if wrong := [query for query in queries if not 0 <= query < count]:
            raise RecipeError(self.folder, f"expected tokens from 0 to {count - 1}, found {wrong[0]}")
        with AttentionRows(self.blocks[index], queries) as attention:
            self.run(self._placed(inputs))
        if attention.rows is None:
            raise RecipeError(self.folder, f"block {layer} does not compute its attention in a form known here")
        return attention.rows

    def flops(self, visible: int | None = None, embedded: int | None = None) -> int:
        """Those of one view on its way to the deepest tap, of n tokens and D wide through b blocks:

        2·n·(their matrices) + 4·b·D·n² for attention + 2·cells·(the patch convolution).

        Args:
            visible: patches that go through the blocks, and ``embedded`` those that the convolution makes; all of the
                grid's where they are left out.
        """
        tokens = self.sequence if visible is None else self.sequence - self.cells + visible
        cells, used = self.cells if embedded is None else embedded, self.blocks[: max(self.taps)]
        sizes = sum(matrix.size for matrix in chain.from_iterable(map(matrices, used)))
        patch = next(each for each in self.model.modules() if isinstance(each, nn.Conv2d))
        pixels = patch.in_channels // patch.groups * prod(patch.kernel_size)
        attention = 2 * len(used) * patch.out_channels * tokens**2
        return 2 * (tokens * sizes + attention + cells * pixels * patch.out_channels)

    def _tapped(self, inputs: Tensor) -> Tensor:
        """(V, all N, D_enc): the hidden states tapped, normed if asked for, joined on the width."""
        norm = self.model.get_submodule(self._norm_name) if self.norm else nn.Identity()
        with self._recording(self.taps) as states:
            self.run(inputs)
        return torch.cat([norm(states[tap]) for tap in self.taps], dim=-1)

    def _chosen(self, tokens: Tensor) -> Tensor:
        if self.tokens == "all":
            return tokens
        return tokens[:, :1] if self.tokens == "cls" else tokens[:, self._prefix :]

    def pixels(self, inputs: Tensor) -> Tensor:
        """(V, C, H, W) on the model's device, normalised if they are uint8, in float32."""
        inputs = inputs.to(next(self.model.parameters()).device)
        return (self.prepare.pixels.normalise(inputs) if inputs.dtype == torch.uint8 else inputs).float()

    def _placed(self, inputs: Tensor) -> Tensor:
        """As the model takes them: pixels in its dtype."""
        return self.pixels(inputs).to(next(self.model.parameters()).dtype)

    @property
    def sequence(self) -> int:
        """How many tokens of a view go through the blocks: those before the grid, and the grid's."""
        return self._prefix + self.cells

    @property
    def blocks(self) -> Any:  # a ModuleList or a Sequential: both have a length and slices
        """Those up to the deepest tap, first to last, and at least one."""
        return self.model.get_submodule(self._block_list)

    def _keep(self, blocks: nn.Module) -> None:
        parent, _, name = self._block_list.rpartition(".")
        setattr(self.model.get_submodule(parent), name, blocks)

    @contextmanager
    def _recording(self, taps: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """Fills ``{tap: (V, N, D)}`` while the model runs inside it."""
        states: dict[int, Tensor] = {}

        def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states[0] = args[0] if args else kwargs["hidden_states"]

        def leaving(tap: int) -> Callable[[nn.Module, Any, Any], None]:
            def keep(_: nn.Module, __: Any, output: Any) -> None:
                states[tap] = output[0] if isinstance(output, tuple) else output

            return keep

        hooks = [self.blocks[tap - 1].register_forward_hook(leaving(tap)) for tap in set(taps) if tap > 0]
        if 0 in taps:
            hooks.append(self.blocks[0].register_forward_pre_hook(entering, with_kwargs=True))
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def _resolved(self, layer: int | tuple[int, ...]) -> tuple[int, ...]:
        layers = (layer,) if isinstance(layer, int) else layer
        for one in layers:
            if not -self.depth - 1 <= one <= self.depth:
                problem = f"expected a layer from {-self.depth - 1} to {self.depth}, found {one}"
                raise RecipeError(self.folder, problem, f"the encoder has {self.depth} blocks")
        return tuple(one if one >= 0 else self.depth + 1 + one for one in layers)

    @torch.no_grad()
    def _read(self) -> tuple[Grid, int, int, int | None]:
        """Grid, D, tokens before the grid and D of the pooled output, from a blank image through the first block."""
        grids: list[tuple[int, int]] = []
        blank = self._placed(torch.zeros(1, 3, *self.prepare.size))

        def patched(_: nn.Module, __: Any, output: Tensor) -> None:
            if 0 not in states:  # of a stem of several, the last before the first block
                grids.append((output.shape[-2], output.shape[-1]))

        hooks = [
            module.register_forward_hook(patched) for module in self.model.modules() if isinstance(module, nn.Conv2d)
        ]
        try:
            with reading(self.folder, self._library), self._recording((0,)) as states:
                self.run(blank)
            pooled = None
            if self.tokens == "pooled":
                with reading(self.folder, self._library):
                    pooled = self.pool(blank)
        finally:
            for hook in hooks:
                hook.remove()
        if not grids or states[0].ndim != 3 or states[0].shape[1] < grids[-1][0] * grids[-1][1]:
            problem = "expected patches in one sequence of tokens, found another form"
            raise RecipeError(self.folder, problem, "name a plain vision transformer of fixed input size")
        grid = Grid(1, *grids[-1])
        width = None if pooled is None or pooled.ndim != 2 else pooled.shape[-1]
        return grid, states[0].shape[-1], states[0].shape[1] - grid.cells, width

    def _facts(self, grid: Grid, width: int, pooled: int | None) -> EncoderFacts:
        self.cells = grid.cells
        if self.tokens == "pooled":
            if pooled is None:
                raise RecipeError(self.folder, "tokens: expected a pooled output, found none", "ask for cls or patches")
            return EncoderFacts(pooled, Grid(1, 1, 1))
        width *= len(self.taps)
        if self.tokens == "cls":
            if not any(name.rpartition(".")[2] in _CLS_NAMES for name, _ in self.model.named_parameters()):
                raise RecipeError(self.folder, "tokens: expected a CLS token, found none", "ask for patches or pooled")
            return EncoderFacts(width, Grid(1, 1, 1))
        return EncoderFacts(width, grid, self._prefix if self.tokens == "all" else 0)
