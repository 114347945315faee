"""The logit lens: what the LLM would say next if a state were its last, as distributions over its words.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (vocabulary distributions)

The lens itself: interpreting GPT: the logit lens, nostalgebraist, LessWrong 2020.

Symbols: T states, H their width, V words with a logit.

differs from the released code: perceptual and text tokens are read at the same depth, where a variable that outlives
its loop leaves the former at the LLM's input; and the last block's state is normed once, where transformers' own last
hidden state, which is normed, is normed again. A lens must be given raw states, as they leave a block.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from mmbridge.alignment.clouds import AT_ONCE, finite
from mmbridge.errors import RecipeError
from mmbridge.llm.model import LanguageModel


class Lens:
    """An LLM's own way from its last block's output to logits, for any block's output.

    It is found by running a few tokens and taking note of the modules called after the last block: a final norm where
    the family has one, OPT's projection to the words' width, the output head. Soft caps, as Gemma-2's, act on logits.
    What comes out for these tokens is compared with the model's own logits.

    Raises:
        RecipeError: the model does something else with its last states as well, so that its logits are others.
    """

    def __init__(self, llm: LanguageModel) -> None:
        text = llm.model.config.get_text_config(decoder=True)
        self._cap: float | None = getattr(text, "final_logit_softcapping", None)
        self._modules, state, logits = _after_blocks(llm)
        self._dtype, self._device, self._words = state.dtype, state.device, logits.shape[-1]
        if not torch.allclose(self._logits(state), logits.float(), rtol=1e-2, atol=1e-2 * float(logits.std())):
            expected = f"expected logits by way of {', '.join(type(each).__name__ for each in self._modules)}"
            raise RecipeError(llm.config.path, f"{expected}, found others in {type(llm.model).__name__}")

    @torch.no_grad()
    def __call__(self, states: Tensor) -> Iterator[Tensor]:
        """log p (t, V) in float32, t states at a time: log softmax(head(norm(x))).

        Args:
            states: (T, H), raw, as they enter the first block or leave any; in any dtype, on any device.

        Raises:
            DataError: some states are not finite.
        """
        for piece in torch.split(states, max(1, AT_ONCE // self._words)):
            finite(piece.float().norm(dim=-1), "states")
            yield self._logits(piece[None])[0].log_softmax(-1)

    def _logits(self, values: Tensor) -> Tensor:
        """(1, t, V) in float32 of states (1, t, H)."""
        values = values.to(self._device, self._dtype)
        for module in self._modules:
            values = module(values)
        values = values.float()
        return values if self._cap is None else self._cap * torch.tanh(values / self._cap)


@torch.no_grad()
def _after_blocks(llm: LanguageModel) -> tuple[list[nn.Module], Tensor, Tensor]:
    """The modules called after the last block; what the block made (1, 1, H); the model's logits (1, 1, V)."""
    states, called = list[Tensor](), list[tuple[str, nn.Module]]()

    def took(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    def call(module: nn.Module, _: object, *, name: str) -> None:
        if states and not any(name.startswith(f"{outer}.") for outer, _ in called):
            called.append((name, module))

    handles = [llm.layers[-1].register_forward_hook(took)]
    for name, module in llm.model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(call, name=name)))
    try:
        ids = torch.arange(min(llm.vocabulary, 8))[None]  # not one alone: the embedding of padding may be zero
        logits: Tensor = llm.model(inputs_embeds=llm.embed(ids), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return [module for _, module in called], states[0], logits
