"""States of the LLM at named sites, handed to a reader while it runs; none is kept here.

A block, as every family here has it, is

    attention_norm → attention → (+) → ffn_norm → ffn → (+)

``input`` is what the first block reads (in GPT-2 and OPT with positions added), ``block`` what a block ends in,
``after_attention`` the sum in its middle; ``attention`` and ``ffn`` are what those two made, before anything is added
or normed once more.
``final`` is what the output head reads, behind the last norm. transformers' ``output_hidden_states`` are ``input``,
the ``block`` of all blocks but the last, and ``final`` in the last one's place; here its own output is there too.

What parts a block has is found by watching one token go through it, so no family is known by name.

Symbols: B samples, T positions, D width of the states there.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmbridge.errors import RecipeError
from mmbridge.llm.trim import attends, maps

if TYPE_CHECKING:
    from mmbridge.context import ForwardContext
    from mmbridge.llm.model import LanguageModel

SiteName = Literal["input", "attention_norm", "attention", "after_attention", "ffn_norm", "ffn", "block", "final"]
INSIDE: tuple[SiteName, ...] = ("attention_norm", "attention", "after_attention", "ffn_norm", "ffn")
"""Those inside a block, in the order in which they are computed."""


@dataclass(frozen=True, slots=True)
class Site:
    """``depth`` 0 is the input; l is in or behind block l."""

    name: SiteName
    depth: int


Reader = Callable[[Site, Tensor], object]
"""Takes the states (B, T, D) of a site, in the model's dtype; they are the model's own and must not be changed."""


@torch.no_grad()
def read_states(llm: "LanguageModel", context: "ForwardContext", names: Collection[SiteName], reader: Reader) -> None:
    """One forward pass over a spliced batch, in which ``reader`` is given the states of every site of these names, in
    the order of the computation. The output head does not run.

    Raises:
        RecipeError: the LLM's blocks have no such site.
    """
    inputs: dict[str, Any] = {"inputs_embeds": context.embeds}
    if context.padding == "left":
        inputs |= {"attention_mask": context.mask, "position_ids": context.positions}
    with llm.during(context), tapped(llm, names, reader):
        llm.model(**inputs, use_cache=False)


@contextmanager
def tapped(llm: "LanguageModel", names: Collection[SiteName], reader: Reader) -> Iterator[None]:
    """While inside, forward passes of the whole model give their states to ``reader``, and logits of nothing."""
    inside = [name for name in INSIDE if name in names]
    if inside and llm not in _PARTS:
        _PARTS[llm] = _parts(llm)
    parts = _PARTS[llm] if inside else {}
    missing = [name for name in inside if name not in parts]
    if missing:
        problem = f"the blocks of {type(llm.model).__name__} have no {missing[0]}"
        raise RecipeError("llm.path", problem, "leave the site out")
    shape = list[int]()

    def give(site: Site, states: Any) -> None:
        values: Tensor = states[0] if isinstance(states, tuple) else states
        reader(site, values.view(*shape, -1))  # OPT's feed-forward reads all rows as one

    with ExitStack() as stack:

        def hook(module: nn.Module, site: Site, *, before: bool) -> None:
            def entering(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                give(site, args[0] if args else keywords["hidden_states"])

            def leaving(_: nn.Module, __: Any, output: Any) -> None:
                give(site, output)

            handle = (
                module.register_forward_pre_hook(entering, with_kwargs=True)
                if before
                else module.register_forward_hook(leaving)
            )
            stack.callback(handle.remove)

        def remember(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            shape[:] = (args[0] if args else keywords["hidden_states"]).shape[:-1]

        first = llm.layers[0]
        stack.callback(first.register_forward_pre_hook(remember, with_kwargs=True).remove)
        if "input" in names:
            hook(first, Site("input", 0), before=True)
        for depth, block in enumerate(llm.layers, start=1):
            for name in inside:
                part, before = parts[name]
                hook(block.get_submodule(part), Site(name, depth), before=before)
            if "block" in names:
                hook(block, Site("block", depth), before=False)
        if "final" in names:
            hook(llm.head, Site("final", len(llm.layers)), before=True)
        stack.callback(llm.head.register_forward_pre_hook(_of_nothing).remove)
        yield


def _of_nothing(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0][:, :0], *args[1:])


Parts = dict[SiteName, tuple[str, bool]]
_PARTS = WeakKeyDictionary[nn.Module, Parts]()
"""Those of each LLM, once they are known."""


def _parts(llm: "LanguageModel") -> Parts:
    """Where in a block its sites are: the part, and whether it is what goes in or what comes out.

    Norms are those right in front of attention and of the feed-forward; Gemma-2 has others behind them, OPT-350m no
    other. Where both read one norm, as in Phi, nothing stands between the two.
    """
    block, order = llm.layers[0], list[str]()
    with ExitStack() as stack:
        for name, child in block.named_children():
            handle = child.register_forward_pre_hook(lambda _, __, name=name: order.append(name))
            stack.callback(handle.remove)
        with torch.no_grad():
            llm.model(inputs_embeds=llm.embed(torch.tensor([[llm.pad_id]])), use_cache=False)
    roles = [_role(block.get_submodule(name)) for name in order]
    attention = [name for name, role in zip(order, roles, strict=True) if role == "attention"]
    ffn = [name for name, role in zip(order, roles, strict=True) if role == "ffn"]
    if len(attention) != 1 or not ffn:
        return {}
    found: Parts = {"attention": (attention[0], False), "ffn": (ffn[-1], False)}
    if norm := _in_front(order, roles, attention[0]):
        found["attention_norm"] = norm, False
    if norm := _in_front(order, roles, ffn[0]):
        found |= {"ffn_norm": (norm, False), "after_attention": (norm, True)}
    return found


def _role(part: nn.Module) -> Literal["attention", "ffn", "norm", "other"]:
    if attends(part):
        return "attention"
    if maps(part):
        return "ffn"
    return "norm" if any(True for _ in part.parameters()) else "other"


def _in_front(order: Sequence[str], roles: Sequence[str], part: str) -> str | None:
    """The norm that was called right in front of a part, if it was one."""
    called = [(name, role) for name, role in zip(order, roles, strict=True) if role != "other"]
    for (name, role), (after, _) in pairwise(called):
        if after == part:
            return name if role == "norm" else None
    return None
