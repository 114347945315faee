"""What the engines under DeepSpeed share: how it is started, and how a bridge is made whole again."""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it is looked for, and that is told on standard output

import deepspeed
from deepspeed.runtime.zero import GatheredParameters, Init
from torch import Tensor, nn

from mmbridge.bridge import Bridge
from mmbridge.connectors.vocabulary import Vocabulary
from mmbridge.device import pick
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.ranks import Ranks
from mmbridge.stage import StageConfig
from mmbridge.torch_engine import TorchEngine

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # serves inference alone, and takes a compiler

_LINEAR = nn.functional.linear
"""torch's own. ZeRO-3 puts one in its place, for the whole process, that keeps no weights for the backward pass but
keeps its inputs, and never takes it back."""


class ZeroEngine(TorchEngine):
    """A torch engine whose bridge, or a part of it, is DeepSpeed's; ``_start`` hands it over.

    Args:
        bridge: with ``requires_grad`` set on what trains, not on its device yet; it is put in training mode.
        stage: objectives, optimiser, schedule and precision.
        steps: of the whole stage.
        key: where the stage stands in its recipe, for errors.
        ranks: the processes that train together; their group is open.
        config: the engine section.

    Raises:
        RecipeError: a parameter group matches nothing that trains, DeepSpeed refuses the configuration, or ZeRO-3 meets
            weights in int8, or a connector that reads the LLM's words.
        UserError: no such device.
    """

    def __init__(
        self, bridge: Bridge, stage: StageConfig, steps: int, key: str, ranks: Ranks, config: DeepSpeedEngineConfig
    ) -> None:
        self._device, self._zero = pick(config.device, ranks.local), config.zero_stage
        if self._zero == 3 and any(each.dtype == torch.int8 for each in bridge.llm.parameters()):
            problem = (
                "bitsandbytes keeps weights in int8 whole in every process, and ZeRO-3 would shard nothing of them"
            )
            raise RecipeError("engine.zero_stage", problem, "set it to 2 or less, or llm.quantization to nf4")
        if self._zero == 3 and any(isinstance(each, Vocabulary) for each in bridge.connectors.modules()):
            problem = "a projector into the LLM's vocabulary reads all of its words, which ZeRO-3 shards"
            raise RecipeError("engine.zero_stage", problem, "set it to 2 or less")
        bridge.encoders.to(self._device)
        bridge.connectors.to(self._device)
        super().__init__(bridge, stage, steps, key, ranks)
        self._mapped = sharded(bridge.llm, self._device, _told(stage, config)) if self._zero == 3 else {}
        self._engine = self._start(config)

    def _start(self, config: DeepSpeedEngineConfig) -> Any:
        """DeepSpeed's engine over its part of the bridge."""
        raise NotImplementedError

    @property
    def intertwined(self) -> bool:
        return self._zero == 3

    @property
    def runs_on_nothing(self) -> bool:
        return True

    def close(self) -> None:
        """Takes DeepSpeed's hooks off and makes the bridge whole again; in main memory where it was sharded."""
        self._engine.destroy()
        nn.functional.linear = _LINEAR
        _make_whole(self.bridge.modules(), self._mapped)
        for each in self._trainable.values() if self._zero < 3 else ():
            each.data = each.detach().clone()  # was a view of one long tensor
        self.bridge.to("cpu" if self._zero == 3 else self._device)


def initialised(
    module: nn.Module, optimiser: torch.optim.Optimizer | None, stage: StageConfig, config: DeepSpeedEngineConfig
) -> Any:
    """DeepSpeed's engine over a module; without an optimiser it only shards weights (ZeRO-3).

    Raises:
        RecipeError: DeepSpeed refuses the configuration.
    """
    try:
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimiser, config=_told(stage, config), dist_init_required=False
        )
    except (ValueError, AssertionError, TypeError, KeyError) as error:
        problem = f"DeepSpeed refuses it ({' '.join(str(error).split())})"
        raise RecipeError("engine", problem, "see engine.config") from error
    return engine


def _told(stage: StageConfig, config: DeepSpeedEngineConfig) -> dict[str, Any]:
    """DeepSpeed's configuration: what the recipe decides, and the further keys it gives."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload_param:
        zero["offload_param"] = {"device": "cpu"}
    ours = {
        "train_micro_batch_size_per_gpu": stage.batch,
        "gradient_accumulation_steps": stage.accumulate,
        "gradient_clipping": stage.optim.clip or 0.0,
        "zero_force_ds_cpu_optimizer": False,  # torch's own fused AdamW steps on a CPU as well, and needs no compiler
        "zero_optimization": zero,
    }
    return _over(config.config, ours)


def _over(under: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations in one, section by section; they have no key in common."""
    both = {key: under[key] for key in under if key not in given}
    for key, value in given.items():
        inner = under.get(key)
        both[key] = _over(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def gathered(parameter: nn.Parameter) -> AbstractContextManager[object]:
    """Within it a parameter that ZeRO-3 has sharded is whole; what is written to it there is kept."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    whole: AbstractContextManager[object] = GatheredParameters(
        parameter, modifier_rank=0 if parameter.requires_grad else None
    )
    return whole


def sharded(module: nn.Module, device: torch.device, told: Mapping[str, Any]) -> dict[nn.Parameter, Tensor]:
    """Shards a module's weights by ZeRO-3 one after the other: of one at a time a process has a copy on its device.

    ``deepspeed.initialize`` would put the whole module there first, and on a CPU write the first process's weights over
    those of the others, though they are the same: where files are mapped into memory, that makes copies of them all.

    Returns:
        The frozen weights that lie in mapped files, as they were; they take no memory that could not be freed.
    """
    parameters: list[Any] = [*module.parameters()]
    first, *others = parameters
    mapped = {
        each: each.data
        for each in parameters
        if not each.requires_grad and not each.untyped_storage().resizable()  # torch does not own the memory
    }
    first.data = first.data.to(device, copy=True)
    Init(module=nn.ParameterList([first]), config_dict_or_path=dict(told))
    for each in others:
        each.data = each.data.to(device, copy=True)
        first.convert_to_zero_parameters(param_list=[each])
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)
    return mapped


def _make_whole(modules: Iterable[nn.Module], mapped: Mapping[nn.Parameter, Tensor]) -> None:
    """Puts whole parameters, in main memory, in place of those that ZeRO-3 has sharded; ``mapped`` are there already.

    DeepSpeed's hooks must have been taken off.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in modules:
        whole: dict[str, nn.Parameter | None] = {}
        for name, parameter in dict.items(module._parameters):
            if parameter is not None and hasattr(parameter, "ds_id"):
                if parameter not in made:
                    values = mapped[parameter] if parameter in mapped else _whole(parameter)
                    made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                parameter = made[parameter]
            whole[name] = parameter
        module._parameters = whole  # DeepSpeed's own dictionary gathers when it is read


def _whole(parameter: nn.Parameter) -> Tensor:
    with gathered(parameter):
        return parameter.detach().to("cpu", copy=True)
