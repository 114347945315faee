"""Item–item contrast written out over directions of queries, in loops of NumPy's; nothing of ours is used.

Gradients are those of torch through the same loops.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def item_contrast(queries: Sequence[Tensor], pairs: Sequence[tuple[int, int]], temperature: Tensor) -> Tensor:
    """The sum over the pairs.

    Args:
        queries: of each item, (M, C), not of length 1 yet.
        pairs: numbers of items that go together.
        temperature: what similarities are divided by.
    """
    near: dict[tuple[int, int], Tensor] = {}
    for one in range(len(queries)):
        for other in range(len(queries)):
            found = None
            for a in queries[one]:
                for b in queries[other]:
                    product = (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())
                    found = product if found is None or product > found else found
            assert found is not None
            near[one, other] = found / temperature
    total = torch.zeros((), dtype=temperature.dtype)
    for first, second in pairs:
        right = [n for n, (a, b) in enumerate(pairs) if a == first or b == second]
        for own, side in ((first, 1), (second, 0)):
            mass = torch.zeros((), dtype=temperature.dtype)
            for pair in pairs:
                if pair[side] != own:
                    mass = mass + torch.exp(near[own, pair[side]])
            for number in right:
                if pairs[number][side] != own:
                    total = total - (near[own, pairs[number][side]] - torch.log(mass)) / len(right) / 2
    assert math.isfinite(total.item())
    return total
