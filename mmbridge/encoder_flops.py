"""The floating-point operations of one view on its way through an encoder, as a closed formula.

Symbols: n tokens of a view inside the encoder, D its width, b blocks up to the deepest tap. A multiply-add is two
FLOPs.

    2·n·(matrices of b blocks) + 4·b·D·n² for attention + 2·cells·(patch convolution)

Not counted: norms, activations, and the pooling head behind the blocks.
"""

from itertools import chain
from math import prod

from torch import nn

from mmbridge.encoders.vision import VisionEncoder
from mmbridge.matrices import matrices


def encoder_flops(encoder: nn.Module, visible: int | None = None, embedded: int | None = None) -> int:
    """FLOPs of one view on its way to the deepest tap.

    Args:
        visible: patches that go through the blocks, and ``embedded`` those that the convolution makes; all of the
            grid's where they are left out.
    """
    assert isinstance(encoder, VisionEncoder)
    tokens = encoder.sequence if visible is None else encoder.sequence - encoder.cells + visible
    cells, used = encoder.cells if embedded is None else embedded, encoder.blocks[: max(encoder.taps)]
    sizes = sum(matrix.size for matrix in chain.from_iterable(map(matrices, used)))
    patch = next(each for each in encoder.model.modules() if isinstance(each, nn.Conv2d))
    pixels = patch.in_channels // patch.groups * prod(patch.kernel_size)
    attention = 2 * len(used) * patch.out_channels * tokens**2
    return 2 * (tokens * sizes + attention + cells * pixels * patch.out_channels)
