"""The linear projector."""

import pytest
import torch

from mmbridge.connectors.base import Words
from mmbridge.connectors.config import LinearConfig
from mmbridge.connectors.linear import Linear


def linear(width_in: int, width_out: int, **options: float) -> Linear:
    built = LinearConfig(**options).build(width_in, Words(width_out))
    assert isinstance(built, Linear)
    return built


@pytest.mark.proof("linear", against="torch.nn.functional.linear and its gradients, from weights in NumPy's hands")
def test_outputs_and_gradients() -> None:
    ours, values = linear(5, 7), torch.randn(2, 3, 5)
    ours(values).square().sum().backward()
    weight, bias, seen = ours.linear.weight.detach().numpy(), ours.linear.bias.detach().numpy(), values.numpy()
    out = seen @ weight.T + bias
    assert torch.allclose(ours(values), torch.from_numpy(out), atol=1e-6)
    by_hand = 2 * out.reshape(-1, 7).T @ seen.reshape(-1, 5)  # d(Σy²)/dW = 2 yᵀx
    assert ours.linear.weight.grad is not None
    assert torch.allclose(ours.linear.weight.grad, torch.from_numpy(by_hand), rtol=1e-5, atol=1e-5)


def test_parameter_count_of_limber() -> None:
    """CLIP RN50x16's 3072 onto GPT-J's 4096: the 12.6 million the paper's method trains."""
    with torch.device("meta"):
        assert sum(tensor.numel() for tensor in linear(3072, 4096, dropout=0.1).parameters()) == 12_587_008


@pytest.mark.parametrize(("width", "count"), [(768, 590_592), (2048, 1_574_912)], ids=["T5-base", "OPT-1.3B"])
def test_parameter_count_of_vlap(width: int, count: int) -> None:
    """One ``nn.Linear`` with a bias from CLIP ViT-B/32 or BEiT-base: 0.6 and 1.6 million, and nothing else trains."""
    with torch.device("meta"):
        assert sum(tensor.numel() for tensor in linear(768, width).parameters()) == count


def test_names_and_bias() -> None:
    assert set(linear(2, 3).state_dict()) == {"linear.weight", "linear.bias"}
    assert set(linear(2, 3, bias=False).state_dict()) == {"linear.weight"}


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    ours, values = linear(4, 1000, dropout=0.25), torch.randn(1, 4)
    dropped = (ours(values) == 0).float().mean().item()
    assert 0.2 < dropped < 0.3
    assert torch.equal(ours.eval()(values), ours.linear(values))


def test_starts_as_torch_does() -> None:
    torch.manual_seed(3)
    ours = linear(8, 8)
    torch.manual_seed(3)
    assert torch.equal(ours.linear.weight, torch.nn.Linear(8, 8).weight)
