"""How much the linear layers of an LLM's blocks read of each of their inputs: the activations in Wanda's score.

A Simple and Effective Pruning Approach for Large Language Models
Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter, arXiv 2306.11695

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

S_oi = |W_oi| · ‖x_i‖₂, with ‖x_i‖₂ over all tokens that the layer reads. Blocks are pruned in order, and later ones
read what the pruned ones make; within a block all layers are scored as it was.

differs from the released code of the second: padding is no token and counts for nothing there is; norms are of sums
over tokens, not of means over samples, which is the same for every comparison within a row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmbridge.alignment.weights.masks import highest, kept, require_sparsity, scores
from mmbridge.context import ForwardContext
from mmbridge.errors import RecipeError
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.sites import read_states
from mmbridge.llm.weight_mask import Linear, WeightMask, linear_layers, matrix, without

Norms = dict[str, Tensor]
"""(in,) in float32 by layer."""
_Call = Callable[[Tensor], Tensor]


@torch.no_grad()
def input_norms(llm: LanguageModel, contexts: Sequence[ForwardContext], sparsity: float | None = None) -> Norms:
    """‖x_i‖₂ of what each linear layer inside the blocks reads at the real positions of all batches.

    Args:
        contexts: spliced batches.
        sparsity: later blocks read what earlier ones make once this share of their weights is dropped; as they are in
            the whole LLM when left out. With it, the hidden states of all batches are held, one for each position, and
            every block runs three times rather than once.

    Raises:
        RecipeError: the LLM is quantised, or a layer does not read every position.
        UserError: the sparsity is none.
    """
    layers = linear_layers(llm.layers)
    sums = {name: torch.zeros(matrix(layer).shape[1], device=layer.weight.device) for name, layer in layers.items()}
    if sparsity is None:
        for context in contexts:
            with _summed(layers, sums, context.mask):
                _through(llm, context)
        return {name: each.sqrt() for name, each in sums.items()}
    require_sparsity(sparsity)
    states, calls = _captured(llm, contexts)
    for number in range(len(llm.layers)):
        own = {name: layer for name, layer in layers.items() if name.startswith(f"{number}.")}
        for context, state, call in zip(contexts, states, calls, strict=True):
            with _summed(own, sums, context.mask):
                call[number](state)
        with without(own, _pruned(own, sums, sparsity)):
            states = [call[number](state) for state, call in zip(states, calls, strict=True)]
    return {name: each.sqrt() for name, each in sums.items()}


def permuted(norms: Mapping[str, Tensor], seed: int = 0) -> Norms:
    """The same norms, each at another input of its layer: what is left of Wanda's score without the activations."""
    generator = torch.Generator().manual_seed(seed)
    return {name: each[torch.randperm(len(each), generator=generator).to(each.device)] for name, each in norms.items()}


def _pruned(layers: Mapping[str, Linear], sums: Mapping[str, Tensor], sparsity: float) -> WeightMask:
    """Some layers' part of a mask."""
    found = {}
    for name, layer in layers.items():
        weight = matrix(layer)
        found[name] = highest(scores(weight, sums[name].sqrt()), kept(weight.shape, sparsity))
    return WeightMask.of("", "", found)


@contextmanager
def _summed(layers: Mapping[str, Linear], sums: Norms, real: Tensor) -> Iterator[None]:
    """While inside, the squares of what layers read where ``real`` (B, T) is true are added to ``sums``."""
    places = real.flatten()

    def add(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = args[0].flatten(0, -2)
        if len(rows) != len(places):
            problem = f"expected layers that read every position, found {name} with {len(rows)} of {len(places)}"
            raise RecipeError("llm.path", problem)
        sums[name] += rows[places.to(rows.device)].float().square().sum(dim=0)

    with ExitStack() as handles:
        for name, layer in layers.items():
            handles.callback(layer.register_forward_pre_hook(partial(add, name)).remove)
        yield


def _captured(llm: LanguageModel, contexts: Sequence[ForwardContext]) -> tuple[list[Tensor], list[list[_Call]]]:
    """Of each batch, the states that the first block reads, and each block as a function of what it reads."""
    states, calls = [], []
    for context in contexts:
        found: list[tuple[Tensor, _Call]] = []

        def keep(block: nn.Module, args: tuple[Any, ...], rest: dict[str, Any], into: Any = found) -> None:
            if args:
                into.append((args[0], partial(_after, block, args[1:], rest)))
            else:
                others = {name: each for name, each in rest.items() if name != "hidden_states"}
                into.append((rest["hidden_states"], partial(_after, block, (), others)))

        with ExitStack() as handles:
            for block in llm.layers:
                handles.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
            _through(llm, context)
        states.append(found[0][0])
        calls.append([call for _, call in found])
    return states, calls


def _after(block: nn.Module, args: tuple[Any, ...], rest: Mapping[str, Any], state: Tensor) -> Tensor:
    made: Any = block(state, *args, **rest)
    output: Tensor = made[0] if isinstance(made, tuple) else made
    return output


def _through(llm: LanguageModel, context: ForwardContext) -> None:
    """A forward pass for hooks alone."""
    read_states(llm, context, (), lambda _, __: None)
