"""The optimiser over parameter groups, and the learning rate over a stage.

Muon: An optimizer for hidden layers in neural networks
Keller Jordan, Yuchen Jin, Vlado Boza, Jiacheng You, Franz Cesista, Laker Newhouse, Jeremy Bernstein, 2024, a web page

Muon is Scalable for LLM Training
Jingyuan Liu, Jianlin Su, Xingcheng Yao and others, arXiv 2502.16982 (each matrix's rate times 0.2·√(longer side), so
that one rate suits Muon's matrices and AdamW's other parameters)

The schedule is transformers': the rate rises from 0, in the first step, to the peak, and then is cosine, linear or
constant.
differs from it: linear decay may end at a floor, as cosine decay can.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from mmbridge.llm.model import LanguageModel
from mmbridge.stage import OptimConfig, ScheduleConfig
from mmbridge.trainable import matched

Named = Mapping[str, nn.Parameter]


def optimisers(trainable: Named, hidden: Collection[str], config: OptimConfig, key: str) -> list[Optimizer]:
    """What steps together: Muon, where it is asked for and has something to train, and AdamW in the fused form.

    Args:
        trainable: parameters by name; the first group of ``config`` whose pattern matches a name has it.
        hidden: names of those that Muon is for, ``hidden_weights``.
        config: rates and decays; only parameters of two or more dimensions decay.
        key: where it stands in its recipe, for errors.

    Raises:
        RecipeError: a group's pattern matches none of the names.
    """
    muon, adamw = list[dict[str, object]](), list[dict[str, object]]()
    for group, lr, decay in _groups(trainable, config, key):
        orthogonal = {name for name in group if config.kind == "muon" and name in hidden}
        matrices = {name for name in group if group[name].ndim >= 2} - orthogonal
        for names, into, weight_decay in (
            (orthogonal, muon, decay),
            (matrices, adamw, decay),
            (group.keys() - orthogonal - matrices, adamw, 0.0),
        ):
            if names:
                params = [each for name, each in group.items() if name in names]
                into.append({"params": params, "lr": lr, "weight_decay": weight_decay})
    found: list[Optimizer] = []
    if muon:
        momentum = 0.95 if config.momentum is None else config.momentum
        found.append(Muon(muon, lr=config.lr, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
    if adamw:
        found.append(AdamW(adamw, lr=config.lr, betas=config.betas, eps=config.eps, fused=True))
    return found


def hidden_weights(model: nn.Module) -> set[str]:
    """Names of the weights of linear maps, but for a language model's output head: what Muon is made for."""
    heads = [each.head for each in model.modules() if isinstance(each, LanguageModel)]
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(module is head for head in heads)
    }


def _groups(trainable: Named, config: OptimConfig, key: str) -> Iterator[tuple[Named, float, float]]:
    """Each group's parameters, rate and decay; those that no group matches come last."""
    rest = dict(trainable)
    for index, group in enumerate(config.groups):
        names = matched(trainable, group.match, f"{key}.groups.{index}.match")
        mine = {name: rest.pop(name) for name in names if name in rest}
        lr = config.lr if group.lr is None else group.lr
        yield mine, lr, config.weight_decay if group.weight_decay is None else group.weight_decay
    yield rest, config.lr, config.weight_decay


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


class Rates:
    """The learning rates of some optimisers: each group's peak times the schedule. ``taken`` steps are done."""

    def __init__(self, optimisers: Iterable[Optimizer], config: ScheduleConfig, steps: int) -> None:
        self._groups = [(group, group["lr"]) for each in optimisers for group in each.param_groups]
        self._rate = schedule(config, steps)
        self.go_to(0)

    @property
    def first(self) -> float:
        """The first group's, in the coming step."""
        return float(self._groups[0][0]["lr"])

    def go_to(self, taken: int) -> None:
        """Sets the rates of the step that comes after so many."""
        self.taken = taken
        for group, peak in self._groups:
            group["lr"] = peak * self._rate(taken)
