"""A frozen LLM whose linear maps have weights of 8 or 4 bits: bitsandbytes, as transformers drives it.

LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale
Tim Dettmers, Mike Lewis, Younes Belkada, Luke Zettlemoyer, arXiv 2208.07339

QLoRA: Efficient Finetuning of Quantized LLMs (its NF4, with quantisation constants quantised as well)
Tim Dettmers, Artidoro Pagnoni, Ari Holtzman, Luke Zettlemoyer, arXiv 2305.14314

Embeddings, norms, biases and the output head stay in the LLM's number format; encoders and connectors have no part in
it. Weights are quantised in main memory as they are read, and are the same on every device.

differs from LLM.int8(): on a CPU activations stay as they are, as bitsandbytes has it there in training.
"""

import logging
import sys
from importlib import import_module
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from mmbridge.errors import RecipeError
from mmbridge.frozen import quietly
from mmbridge.llm.config import Quantization

_KEY = "llm.quantization"


def quantization_config(kind: Quantization, dtype: torch.dtype) -> Any:
    """transformers' ``BitsAndBytesConfig``, by which it quantises as it loads.

    Args:
        kind: of the weights.
        dtype: what products with NF4 weights are computed in.

    Raises:
        RecipeError: bitsandbytes is not there, or does not run here.
    """
    _require_backend(kind)
    config: Any = BitsAndBytesConfig
    if kind == "int8":
        return config(load_in_8bit=True)
    return config(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def make_differentiable(model: nn.Module) -> None:
    """Keeps quantised maps, where a model has any, fit for a backward pass whatever its mode.

    In evaluation mode bitsandbytes may repack NF4 weights on a CPU for a kernel that has no backward pass: gradients
    would be zero from then on, and frozen tensors changed. On a CPU a row's INT8 product would depend on its batch.

    Raises:
        RecipeError: rows of NF4 weights are not whole blocks, which bitsandbytes 0.50 reads wrongly on a CPU.
    """
    for name, module in model.named_modules():
        if not _quantised(module):
            continue
        inputs, block = module.in_features, getattr(module.weight, "blocksize", 1)
        if inputs % block:
            problem = (
                f"NF4 has blocks of {block}: expected maps of a multiple of so many inputs, found {name} of {inputs}"
            )
            raise RecipeError(_KEY, problem, "set it to int8 or null")
        module.register_forward_pre_hook(_before)


def _before(module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    module.training = True
    state, weight, bias = getattr(module, "state", None), module.weight, module.bias
    if state is not None and weight.CB is not None:
        module.init_8bit_state()
    if state is not None and state.CB.device != weight.device:  # these do not follow a parent's ``to``
        state.CB, state.SCB = weight.data, state.SCB.to(weight.device)
    if bias is None or arguments[0].dtype == bias.dtype:
        return arguments
    return (arguments[0].to(bias.dtype), *arguments[1:])  # else the frozen bias would be cast, and stay so


def _quantised(module: nn.Module) -> TypeGuard[nn.Linear]:
    library = sys.modules.get("bitsandbytes")
    return library is not None and isinstance(module, library.nn.Linear8bitLt | library.nn.Linear4bit)


def _require_backend(kind: Quantization) -> None:
    """Multiplies with a small map of this kind, forward and backward."""
    try:
        with quietly():
            library: Any = import_module("bitsandbytes")
    except ImportError:
        problem = "expected the package bitsandbytes to be installed, found none"
        raise RecipeError(_KEY, problem, "pip install 'mmbridge[quant]', or set it to null") from None
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # each product in bfloat16 would be warned of
    try:
        linear = library.nn.Linear8bitLt if kind == "int8" else library.nn.Linear4bit
        extra = {"has_fp16_weights": False} if kind == "int8" else {"quant_type": "nf4"}
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            probe, given = linear(64, 64, bias=False, **extra).to("cpu"), torch.ones(1, 64, requires_grad=True)
            probe(given).sum().backward()
    except Exception as error:  # a library without its native part raises everything from OSError to AttributeError
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"bitsandbytes {library.__version__} does not run here ({line})"
        raise RecipeError(_KEY, problem, "set it to null") from error
