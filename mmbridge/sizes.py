"""How large the parameters of a module are, which may be packed or sharded."""

from itertools import chain
from math import prod

from torch import nn


def numbers(parameter: nn.Parameter) -> int:
    """How many numbers a parameter stands for: a byte of NF4 holds two, and a sharded tensor is empty."""
    packed = getattr(parameter, "quant_state", None)
    return int(getattr(parameter, "ds_numel", parameter.numel()) if packed is None else prod(packed.shape))


def stored(module: nn.Module) -> int:
    """Bytes of a module's parameters as they are, with the constants that quantised ones are scaled by."""
    names = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    known = {name for name, _ in names}
    constants = [each for name, each in module.state_dict().items() if name not in known]
    return sum(int(each.nbytes) for each in (*constants, *module.parameters()))
