"""Linear maps with an activation between each and the next.

Improved Baselines with Visual Instruction Tuning
Haotian Liu, Chunyuan Li, Yuheng Li, Yong Jae Lee, arXiv 2310.03744 (LLaVA-1.5: two maps and a GELU, ``mlp2x_gelu``)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from mmbridge.connectors.config import Activation

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}


class MLP(nn.Module):
    """(…, widths[0]) to (…, widths[-1]). Every map starts as torch's ``nn.Linear`` does."""

    def __init__(self, widths: Sequence[int], *, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(before, after, bias=bias) for before, after in pairwise(widths))
        self.activation = _ACTIVATIONS[activation]

    def forward(self, values: Tensor) -> Tensor:
        for index, linear in enumerate(self.linears):
            values = linear(self.activation(values) if index else values)
        return values
