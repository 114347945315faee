"""LoRA adapters put into a frozen model in place, so that parameter names stay those of the model.

LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, as peft implements it.
differs from the paper: nothing.
"""

import warnings

import torch
from torch import nn

from mmbridge.errors import RecipeError
from mmbridge.frozen import quietly
from mmbridge.llm.config import LoRAConfig


def add_lora(model: nn.Module, config: LoRAConfig) -> None:
    """Add trainable adapters named ``….lora_A.default.weight``, in float32 whatever the model's dtype.

    Raises:
        RecipeError: a target names no linear layer.
    """
    with quietly():  # peft imports bitsandbytes where it is installed, which tells what it lacks
        from peft import LoraConfig, inject_adapter_in_model

    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # GPT-2's Conv1D; peft then sets it itself
            inject_adapter_in_model(lora, model)
    except ValueError as fault:
        first = str(fault).splitlines()[0]
        raise RecipeError("llm.lora.targets", f"expected names of linear layers: {first}") from fault
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
