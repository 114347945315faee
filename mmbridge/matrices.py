"""The matrices of a module: what every token that goes through it is multiplied with.

Found by a walk over the modules that multiply, so no list of model families is needed: linear maps (LoRA's two are
such maps), GPT-2's ``Conv1D`` and the joint projection of ``torch.nn.MultiheadAttention``. Not seen are experts kept
in one stacked parameter, and products that a module writes out itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear map of one token: ``size`` multiply-adds forward, ``out`` numbers made, and whether it ``trains``.

    Sizes are those of the map, not of the tensor at hand, which a sharding engine may have emptied.
    """

    size: int
    out: int
    trains: bool


def matrices(module: nn.Module) -> Iterator[Matrix]:
    """Those of a module and all within it, once each, in the order in which they were registered."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            yield Matrix(each.in_features * each.out_features, each.out_features, each.weight.requires_grad)
        elif isinstance(each, Conv1D):
            yield Matrix(each.nx * each.nf, each.nf, each.weight.requires_grad)
        elif isinstance(each, nn.MultiheadAttention) and each.in_proj_weight is not None:
            joint = 3 * each.embed_dim
            yield Matrix(each.embed_dim * joint, joint, each.in_proj_weight.requires_grad)
