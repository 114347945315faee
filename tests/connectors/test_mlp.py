"""The MLP projector."""

import pytest
import torch
from pydantic import ValidationError
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mmbridge.connectors.base import Words
from mmbridge.connectors.config import MLPConfig
from mmbridge.connectors.mlp import MLP

PARTS = {True: ("weight", "bias"), False: ("weight",)}


def mlp(width_in: int, width_out: int, **options: object) -> MLP:
    built = MLPConfig.model_validate({"kind": "mlp", **options}).build(width_in, Words(width_out))
    assert isinstance(built, MLP)
    return built


@pytest.mark.proof("mlp", against="transformers' LlavaMultiModalProjector, outputs and gradients")
@pytest.mark.parametrize(
    ("activation", "theirs"), [("gelu", "gelu"), ("gelu_tanh", "gelu_pytorch_tanh"), ("relu", "relu"), ("silu", "silu")]
)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_llava(activation: str, theirs: str, bias: bool) -> None:
    vision, text = (
        CLIPVisionConfig(hidden_size=12, num_attention_heads=2),
        LlamaConfig(hidden_size=20, num_attention_heads=2),
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, projector_hidden_act=theirs, multimodal_projector_bias=bias
    )
    reference = LlavaMultiModalProjector(config)
    ours = mlp(12, 20, activation=activation, bias=bias)
    renamed = {f"linear_{index + 1}.{part}": f"linears.{index}.{part}" for index in (0, 1) for part in PARTS[bias]}
    ours.load_state_dict({renamed[name]: tensor for name, tensor in reference.state_dict().items()})

    values = torch.randn(2, 9, 12)
    outputs = [module(values) for module in (ours, reference)]
    assert torch.equal(*outputs)
    for out in outputs:
        out.square().sum().backward()
    for name, tensor in reference.named_parameters():
        assert torch.equal(ours.get_parameter(renamed[name]).grad, tensor.grad), name  # type: ignore[arg-type]


def test_parameter_count_of_llava() -> None:
    """``mlp2x_gelu`` from CLIP ViT-L/14's 1024 to a 7B LLM's 4096."""
    with torch.device("meta"):
        assert sum(tensor.numel() for tensor in mlp(1024, 4096).parameters()) == 20_979_712


def test_depth_and_hidden_width() -> None:
    shapes = [tuple(tensor.shape) for tensor in mlp(5, 7, depth=4, hidden=11, bias=False).parameters()]
    assert shapes == [(11, 5), (11, 11), (11, 11), (7, 11)]
    shapes = [tuple(tensor.shape) for tensor in mlp(5, 7, depth=3, bias=False).parameters()]
    assert shapes == [(7, 5), (7, 7), (7, 7)]


def test_depth_one_is_a_linear_map() -> None:
    ours, values = mlp(5, 7, depth=1), torch.randn(3, 5)
    assert torch.equal(ours(values), torch.nn.functional.linear(values, *ours.parameters()))
    with pytest.raises(ValidationError, match="no hidden width"):
        MLPConfig(depth=1, hidden=3)


def test_names() -> None:
    assert set(mlp(2, 3).state_dict()) == {f"linears.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
