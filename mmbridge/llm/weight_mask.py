"""Which weights of an LLM's blocks stay: a sub-network of it, as a file and put on it.

A weight mask has a bit for every weight of the linear layers inside the blocks; embeddings, norms, biases and the
output head always stay. Layers are named from the list of blocks, ``3.self_attn.q_proj``: the block's number and the
layer's type. Rows are outputs, also of GPT-2's Conv1D, which keeps its weight (in, out).

On disk it is one safetensors file, a byte for eight inputs of a row: 0.81 GB for the 6.48 billion weights of a Llama of
7B. Its header says the content hash of the LLM that it is of.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmbridge.errors import RecipeError
from mmbridge.frozen import content_hash
from mmbridge.llm.config import LLMConfig
from mmbridge.whole_file import written_whole

if TYPE_CHECKING:
    from mmbridge.llm.model import LanguageModel

_FORMAT, _VERSION = "mmbridge weight mask", "1"
_MADE_BY = "python -m mmbridge.recipes.subnetwork makes weight masks"

Bits = NDArray[np.uint8]
Linear = nn.Linear | Conv1D


@dataclass(frozen=True, slots=True)
class WeightMask:
    """``bits`` (out, ⌈in / 8⌉) of each layer, packed along ``inputs`` of it, 1 where a weight stays.

    ``llm`` is the content hash of the LLM (``mmbridge.frozen.content_hash``); ``about`` says how the mask was made.
    """

    llm: str
    about: str
    bits: Mapping[str, Bits]
    inputs: Mapping[str, int]

    @classmethod
    def of(cls, llm: str, about: str, kept: Mapping[str, Tensor]) -> "WeightMask":
        """From (out, in) of each layer, true where a weight stays."""
        bits = {name: np.packbits(each.cpu().numpy(), axis=1) for name, each in kept.items()}
        return cls(llm, about, bits, {name: each.shape[1] for name, each in kept.items()})

    def kept(self, layer: str) -> Tensor:
        """(out, in), true where a weight of a layer stays."""
        return torch.from_numpy(np.unpackbits(self.bits[layer], axis=1, count=self.inputs[layer])).bool()

    def counts(self, layer: str) -> Tensor:
        """(out,), how many weights of each row stay."""
        return torch.from_numpy(np.bitwise_count(self.bits[layer]).sum(axis=1, dtype=np.int64))

    @property
    def sparsity(self) -> float:
        """The share of all weights that do not stay."""
        total = sum(len(bits) * self.inputs[name] for name, bits in self.bits.items())
        return 1 - sum(ones(bits) for bits in self.bits.values()) / total

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all, in place of any that is there."""
        told = {"format": _FORMAT, "version": _VERSION, "llm": self.llm, "about": self.about}
        with written_whole(path) as part:
            save_file(dict(self.bits), part, metadata=told | {"inputs": json.dumps(dict(self.inputs))})

    @classmethod
    def load(cls, path: Path) -> "WeightMask":
        """Reads the file.

        Raises:
            RecipeError: there is none, or it is damaged or something else.
        """
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise RecipeError(path, f"expected a weight mask, found {found}", _MADE_BY)
        try:
            with safe_open(path, framework="numpy") as file:
                told, bits = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise RecipeError(path, f"expected a weight mask, found a damaged file ({error})", _MADE_BY) from error
        if (told.get("format"), told.get("version")) != (_FORMAT, _VERSION):
            raise RecipeError(path, "expected a weight mask, found other tensors", _MADE_BY)
        try:
            llm, about, inputs = told["llm"], told["about"], dict[str, int](json.loads(told["inputs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(path, "expected a weight mask, found a damaged file (in its header)") from error
        if odd := sorted(bits.keys() ^ inputs.keys()):
            raise RecipeError(path, f"expected the layers that its header names, found {odd[0]} in one of the two only")
        if any(each.dtype != np.uint8 or each.ndim != 2 for each in bits.values()):
            raise RecipeError(path, "expected a weight mask, found a damaged file (its tensors are no bits)")
        return cls(llm, about, {name: bits[name] for name in inputs}, inputs)


def ones(bits: Bits) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def intersection(masks: Sequence[WeightMask], about: str) -> WeightMask:
    """What stays in all of ``masks``, of which there is at least one, and all of one LLM."""
    first = masks[0]
    bits = {name: np.bitwise_and.reduce([each.bits[name] for each in masks]) for name in first.bits}
    return WeightMask(first.llm, about, bits, first.inputs)


def linear_layers(blocks: nn.ModuleList) -> dict[str, Linear]:
    """The linear layers inside an LLM's blocks, by name; LoRA's own are none of the LLM's.

    Raises:
        RecipeError: their weights are quantised.
    """
    found = {
        name.removesuffix(".base_layer"): module
        for name, module in blocks.named_modules()
        if isinstance(module, Linear) and ".lora_" not in name
    }
    for module in found.values():
        if not module.weight.is_floating_point():
            kind = str(module.weight.dtype).removeprefix("torch.")
            raise RecipeError("llm.quantization", f"a weight mask needs whole weights, found {kind}", "set it to null")
    return found


def matrix(layer: Linear) -> Tensor:
    """(out, in), the weight of a layer itself, for reading and changing."""
    return layer.weight.detach().t() if isinstance(layer, Conv1D) else layer.weight.detach()


def named_by(config: LLMConfig) -> WeightMask | None:
    """The mask that an LLM's config names, or none.

    Raises:
        RecipeError: it cannot be read, is not of this LLM, or nothing stays.
    """
    if config.mask is None:
        return None
    mask, known = WeightMask.load(Path(config.mask).expanduser()), content_hash(config.located())
    if mask.llm != known:
        problem = f"expected a mask of {config.path}, contents {known[:12]}, found one of {mask.llm[:12]}"
        raise RecipeError(config.mask, problem, "use a mask made for this LLM")
    if mask.sparsity == 1:
        raise RecipeError(config.mask, "expected a mask that leaves some weights, found one that leaves none")
    return mask


def put_on(llm: "LanguageModel") -> None:
    """Sets the weights that the mask of its config drops to zero, for good; none where it names no mask.

    Raises:
        RecipeError: as ``named_by``, or the LLM is quantised.
    """
    mask = named_by(llm.config)
    if mask is None:
        return
    for name, layer in _fitting(llm, mask, llm.config.mask).items():
        weight = matrix(layer)
        weight.masked_fill_(~mask.kept(name).to(weight.device), 0)


@contextmanager
def masked(llm: "LanguageModel", mask: WeightMask) -> Iterator[None]:
    """While inside, weights that do not stay are zero; afterwards all are what they were, to the bit.

    Takes the memory of the weights that do not stay once more.

    Raises:
        RecipeError: the mask's layers or their shapes are not the LLM's, or the LLM is quantised.
    """
    layers = _fitting(llm, mask, mask.about)
    with without(layers, mask):
        yield


@contextmanager
def without(layers: Mapping[str, Linear], mask: WeightMask) -> Iterator[None]:
    """``masked``, of some layers."""
    taken: dict[str, Tensor] = {}
    try:
        for name, layer in layers.items():
            weight = matrix(layer)
            dropped = ~mask.kept(name).to(weight.device)
            taken[name] = weight[dropped]
            weight.masked_fill_(dropped, 0)
        yield
    finally:
        for name, values in taken.items():
            weight = matrix(layers[name])
            weight[~mask.kept(name).to(weight.device)] = values


def _fitting(llm: "LanguageModel", mask: WeightMask, where: object) -> dict[str, Linear]:
    """The LLM's linear layers, once it is certain that the mask is of them."""
    layers = linear_layers(llm.layers)
    problem = _misfit({name: tuple(matrix(layer).shape) for name, layer in layers.items()}, mask)
    if problem:
        raise RecipeError(where, problem, "use a mask made for this LLM")
    return layers


def _misfit(shapes: Mapping[str, tuple[Any, ...]], mask: WeightMask) -> str:
    """What is wrong with the first layer at which a mask is not of layers of these shapes."""
    for name in sorted(shapes.keys() ^ mask.bits.keys()):
        expected, found = (name, "none") if name in shapes else ("no such layer", name)
        return f"expected {expected} among the layers of a weight mask, found {found}"
    for name, shape in shapes.items():
        inputs, bits = mask.inputs[name], mask.bits[name]
        if (len(bits), inputs) != shape:
            return f"{name}: expected a weight mask of shape {shape}, found {(len(bits), inputs)}"
        if bits.shape[1] != -(-inputs // 8):
            return f"{name}: expected a weight mask of shape {shape}, found {bits.shape[1]} bytes a row"
    return ""
