"""AdamW over parameter groups, and the learning rate over a stage.

The schedule is transformers': the rate rises from 0, in the first step, to the peak, and then is cosine, linear or
constant.
differs from it: linear decay may end at a floor, as cosine decay can.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mmbridge.stage import OptimConfig, ScheduleConfig
from mmbridge.trainable import matched


def adamw(trainable: Mapping[str, torch.nn.Parameter], config: OptimConfig, key: str) -> AdamW:
    """AdamW over named parameters, in the fused form.

    Args:
        trainable: by name; the first group of ``config`` whose pattern matches a name has it.
        config: rates and decays; only parameters of two or more dimensions decay.
        key: where it stands in its recipe, for errors.

    Raises:
        RecipeError: a group's pattern matches none of the names.
    """
    rest = dict(trainable)
    groups = []
    for index, group in enumerate(config.groups):
        names = matched(trainable, group.match, f"{key}.groups.{index}.match")
        mine = {name: rest.pop(name) for name in names if name in rest}
        lr = config.lr if group.lr is None else group.lr
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        groups += _split(mine, lr, decay)
    groups += _split(rest, config.lr, config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _split(parameters: Mapping[str, torch.nn.Parameter], lr: float, decay: float) -> list[dict[str, object]]:
    """Matrices, which decay, and the others, which do not; a half without parameters is left out."""
    matrices = [each for each in parameters.values() if each.ndim >= 2]
    others = [each for each in parameters.values() if each.ndim < 2]
    halves: list[dict[str, object]] = [
        {"params": matrices, "lr": lr, "weight_decay": decay},
        {"params": others, "lr": lr, "weight_decay": 0.0},
    ]
    return [half for half in halves if half["params"]]


def schedule(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """The learning rate of step ``n``, counted from 0, as a fraction of the peak."""
    warmup = math.ceil(config.warmup * steps) if config.warmup < 1 else round(config.warmup)

    def rate(step: int) -> float:
        if step < warmup:
            return step / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        match config.kind:
            case "constant":
                return 1.0
            case "linear":
                left = 1.0 - progress
            case "cosine":
                left = 0.5 * (1.0 + math.cos(math.pi * progress))
        return config.floor + (1.0 - config.floor) * left

    return rate


def scheduler(optimiser: AdamW, config: ScheduleConfig, steps: int) -> LambdaLR:
    """The schedule over every group of an optimiser, from its first step."""
    return LambdaLR(optimiser, schedule(config, steps))
