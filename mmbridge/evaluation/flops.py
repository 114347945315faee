"""How many floating-point operations a piece of work executes."""

from collections.abc import Callable


def executed_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products, convolutions and attention in ``work``: two per multiply-add.

    Counted by torch's FlopCounterMode under the SDPA math backend, because it counts the CPU's fused attention as 0.
    Element-wise work is not counted. 0 means that ``work`` ran no such operation in this process.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
