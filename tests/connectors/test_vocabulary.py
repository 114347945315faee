"""The convex hull of words."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from mmbridge.connectors.vocabulary import Vocabulary
from mmbridge.frozen import freeze

WORDS, WIDTH, IN = 11, 6, 5


def module(chunk: int = 3, tied: bool = True) -> tuple[Vocabulary, Tensor]:
    """With norms that do something, and weights far from even."""
    draw = torch.Generator().manual_seed(1)
    table = torch.randn(WORDS, WIDTH, generator=draw, dtype=torch.float64)
    head = None if tied else torch.randn(WORDS, WIDTH, generator=draw, dtype=torch.float64)
    made = Vocabulary(IN, table, head=head, chunk=chunk).double()
    with torch.no_grad():
        for norm in (made.norm, made.head_norm):
            norm.weight.copy_(2 + torch.randn(norm.weight.shape, generator=draw))
            norm.bias.copy_(torch.randn(norm.bias.shape, generator=draw))
    return made, table


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def plain(made: Vocabulary, table: Tensor, given: Tensor) -> Tensor:
    """The formula, in one go."""
    hidden = functional.linear(given, made.linear.weight, made.linear.bias)
    hidden = functional.layer_norm(hidden, (WIDTH,), made.norm.weight, made.norm.bias)
    logits = functional.layer_norm(hidden @ made.head.weight.T, (WORDS,), made.head_norm.weight, made.head_norm.bias)
    return functional.softmax(logits, -1) @ table


@pytest.mark.proof("vocabulary", against="the paper's formula in NumPy, a token at a time")
@pytest.mark.parametrize("tied", [True, False])
def test_equals_numpy(tied: bool) -> None:
    made, table = module(tied=tied)
    given = values(2, 4)
    w1, b1, g1, c1, w2, g2, c2 = (each.detach().numpy() for each in made.parameters())
    for i in range(2):
        for j in range(4):
            hidden = w1 @ given[i, j].numpy() + b1
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * g1 + c1
            logits = w2 @ hidden
            logits = (logits - logits.mean()) / np.sqrt(logits.var() + 1e-5) * g2 + c2
            weights = np.exp(logits) / np.exp(logits).sum()
            expected = sum(weights[k] * table[k].numpy() for k in range(WORDS))
            assert_close(made(given)[i, j].detach().numpy(), expected)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_outputs_and_gradients_are_those_of_the_plain_formula(chunk: int) -> None:
    made, table = module(chunk)
    given = values(2, 4).requires_grad_()
    names = [name for name, _ in made.named_parameters()]
    found = torch.autograd.grad(made(given).pow(2).sum(), [given, *made.parameters()])
    expected = torch.autograd.grad(plain(made, table, given).pow(2).sum(), [given, *made.parameters()])
    assert_close(made(given), plain(made, table, given))
    for name, ours, theirs in zip(["values", *names], found, expected, strict=True):
        assert_close(ours, theirs, rtol=1e-7, atol=1e-9, msg=name)


def test_outputs_are_in_the_convex_hull() -> None:
    """A linear programme finds weights of its own for each; for what is outside it finds none."""
    made, table = module()
    given = 10 * values(9)
    weights = made.weights(given)
    assert weights.min() >= 0
    assert_close(weights.sum(-1), torch.ones(9, dtype=torch.float64))
    assert weights.max() > 0.3
    found = made(given).detach()
    equal = np.vstack([table.T.numpy(), np.ones(WORDS)])
    for each in found.numpy():
        assert linprog(np.zeros(WORDS), A_eq=equal, b_eq=np.append(each, 1)).success
    outside = 2 * table[table.norm(dim=1).argmax()].numpy()
    assert not linprog(np.zeros(WORDS), A_eq=equal, b_eq=np.append(outside, 1)).success


def test_begins_as_the_output_head() -> None:
    table, head = torch.randn(WORDS, WIDTH), torch.randn(WORDS, WIDTH)
    assert torch.equal(Vocabulary(IN, table).head.weight, table)
    made = Vocabulary(IN, table, head=head)
    assert torch.equal(made.head.weight, head)
    made.head.weight.data.zero_()
    assert head.abs().sum() > 0


def test_the_table_stays_the_llms() -> None:
    """It is not saved, does not train, and is read where the LLM keeps it."""
    embedding = torch.nn.Embedding(WORDS, WIDTH)
    freeze(embedding)
    made = Vocabulary(IN, embedding.weight)
    assert set(made.state_dict()) == {
        *(f"{name}.{part}" for name in ("linear", "norm", "head_norm") for part in ("weight", "bias")),
        "head.weight",
    }
    embedding.bfloat16()
    assert made(values(3).float()).dtype == torch.bfloat16
    made(values(3).float()).sum().backward()
    assert embedding.weight.grad is None
    assert made.head.weight.grad is not None


def test_parameter_count_at_the_size_of_llama_3() -> None:
    """SigLIP's 1152 to Llama-3.1-8B's 4096 over 128,256 words: the head is nearly all of it."""
    with torch.device("meta"):
        made = Vocabulary(1152, torch.empty(128_256, 4096))
        linear, norms = 1152 * 4096 + 4096, 2 * 4096 + 2 * 128_256
        assert sum(each.numel() for each in made.parameters()) == 128_256 * 4096 + linear + norms
