"""Our features against the hidden states, pooled outputs and attention maps that transformers itself returns."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmbridge.encoders.config import TransformersConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from tests.encoders.models import picture, seen

Folders = Callable[[str], Path]

FAMILIES = ["clip", "siglip", "dinov2", "dinov2_registers", "blip2", "instructblip", "llava"]
PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_registers": 4, "blip2": 1, "instructblip": 1, "llava": 1}
LAYERS = [-1, -2, 0, 2, (1, -1)]


def library_output(family: str, folder: Path, pixels: Tensor, attention: str = "sdpa") -> Any:
    """What transformers says, every hidden state and attention map included."""
    load: dict[str, Callable[[], Any]] = {
        "clip": lambda: transformers.CLIPVisionModel.from_pretrained(folder),
        "siglip": lambda: transformers.SiglipVisionModel.from_pretrained(folder),
        "dinov2": lambda: transformers.Dinov2Model.from_pretrained(folder),
        "dinov2_registers": lambda: transformers.Dinov2WithRegistersModel.from_pretrained(folder),
        "blip2": lambda: transformers.Blip2ForConditionalGeneration.from_pretrained(folder).vision_model,
        "instructblip": lambda: transformers.InstructBlipForConditionalGeneration.from_pretrained(folder).vision_model,
        "llava": lambda: transformers.LlavaForConditionalGeneration.from_pretrained(folder).model.vision_tower,
    }
    model = load[family]().eval()
    model.set_attn_implementation(attention)
    with torch.no_grad():
        return model(pixel_values=pixels, output_hidden_states=True, output_attentions=attention == "eager")


def library_pixels(folder: Path) -> Tensor:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    pixels: Tensor = processor(images=[picture(50, 40), picture(33, 47, seed=1)], return_tensors="pt")["pixel_values"]
    return pixels


def encoder(folder: Path, **options: Any) -> VisionEncoder:
    return TransformersConfig(path=str(folder), **options).build()


def encoded(folder: Path, **options: Any) -> Tensor:
    built = encoder(folder, **options)
    return built.encode([built.prepare(picture(50, 40)), built.prepare(picture(33, 47, seed=1))]).values


@pytest.mark.proof(
    "transformers", against="transformers' hidden_states of CLIP, SigLIP, DINOv2, BLIP-2, InstructBLIP and LLaVA"
)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states(folder_of: Folders, family: str, layer: int | tuple[int, ...]) -> None:
    folder = folder_of(family)
    states = library_output(family, folder, library_pixels(folder)).hidden_states
    whole = torch.cat([states[one] for one in ([layer] if isinstance(layer, int) else layer)], dim=-1)
    prefix = PREFIX[family]
    torch.testing.assert_close(encoded(folder, layer=layer, tokens="all"), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded(folder, layer=layer), whole[:, prefix:], rtol=1e-5, atol=1e-6)
    if prefix:
        torch.testing.assert_close(encoded(folder, layer=layer, tokens="cls"), whole[:, :1], rtol=1e-5, atol=1e-6)


@pytest.mark.proof("transformers", against="transformers' pooler_output")
@pytest.mark.parametrize("family", FAMILIES)
def test_pooled(folder_of: Folders, family: str) -> None:
    folder = folder_of(family)
    pooled = library_output(family, folder, library_pixels(folder)).pooler_output
    torch.testing.assert_close(encoded(folder, tokens="pooled")[:, 0], pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.proof("transformers", against="transformers' last_hidden_state where it is normed")
@pytest.mark.parametrize("family", ["siglip", "dinov2", "dinov2_registers", "blip2", "instructblip"])
def test_normed(folder_of: Folders, family: str) -> None:
    folder = folder_of(family)
    last = library_output(family, folder, library_pixels(folder)).last_hidden_state
    torch.testing.assert_close(encoded(folder, norm=True, tokens="all"), last, rtol=1e-5, atol=1e-6)


@pytest.mark.proof("transformers", against="transformers' ViTMAEModel, unshuffled by its own ids_restore")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_mae_keeps_its_patches_in_order(folder_of: Folders, layer: int | tuple[int, ...]) -> None:
    """The library shuffles at random; its own record of how puts its patches back."""
    folder = folder_of("mae")
    model: Any = transformers.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0)
    with torch.no_grad():
        output = model(library_pixels(folder), output_hidden_states=True)
    states = output.hidden_states
    shuffled = torch.cat([states[one] for one in ([layer] if isinstance(layer, int) else layer)], dim=-1)
    order = output.ids_restore[..., None].expand(-1, -1, shuffled.shape[-1])
    assert not torch.equal(order, torch.arange(16)[None, :, None].expand_as(order))
    patches = shuffled[:, 1:].gather(1, order)
    torch.testing.assert_close(encoded(folder, layer=layer), patches, rtol=1e-5, atol=1e-5)
    whole = torch.cat([shuffled[:, :1], patches], dim=1)
    torch.testing.assert_close(encoded(folder, layer=layer, tokens="all"), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoded(folder, layer=layer, tokens="cls"), whole[:, :1], rtol=1e-5, atol=1e-5)


def test_two_mae_forwards_agree(folder_of: Folders) -> None:
    assert torch.equal(encoded(folder_of("mae")), encoded(folder_of("mae")))


@pytest.mark.proof("transformers", against="transformers' eager attentions")
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_rows(folder_of: Folders, family: str) -> None:
    folder = folder_of(family)
    pixels = library_pixels(folder)
    maps = library_output(family, folder, pixels, attention="eager").attentions
    built = encoder(folder)
    queries = [0, 5, built.facts.tokens - 1]
    for layer in (0, 1, -1):
        rows = built.attention_rows(pixels, layer, queries)
        torch.testing.assert_close(rows, maps[layer][:, :, queries], rtol=1e-5, atol=1e-6)


@pytest.mark.proof("transformers", against="transformers' image processors")
@pytest.mark.parametrize("family", [*FAMILIES, "mae"])
def test_own_preprocessing(folder_of: Folders, family: str) -> None:
    built = encoder(folder_of(family))
    assert built.prepare(picture(50, 40)).inputs.dtype == torch.uint8
    assert torch.equal(seen(built, picture(50, 40), picture(33, 47, seed=1)), library_pixels(folder_of(family)))


def test_towers_named_as_older_checkpoints_name_them(folder_of: Folders, tmp_path: Path) -> None:
    """LLaVA folders on the hub hold ``vision_tower.vision_model.…``; today's transformers writes another name."""
    new = folder_of("llava")
    weights = load_file(new / "model.safetensors")
    assert any(name.startswith("vision_tower.encoder.") for name in weights)
    old = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in weights.items()}
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((new / name).read_bytes())
    assert torch.equal(encoded(tmp_path), encoded(new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: {}, "found 1 missing: encoder.layers.1.mlp.fc1.weight first"),
        (lambda weight: {"weight": weight[1:]}, "found 1 of another shape: encoder.layers.1.mlp.fc1.weight first"),
    ],
)
def test_weights_that_do_not_fit(folder_of: Folders, tmp_path: Path, change: Any, message: str) -> None:
    """transformers would draw them at random and go on."""
    folder = folder_of("clip")
    weights = load_file(folder / "model.safetensors")
    stem = "vision_model.encoder.layers.1.mlp.fc1."
    weights |= {stem + name: tensor for name, tensor in change(weights.pop(f"{stem}weight")).items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(RecipeError, match=re.escape(message)):
        encoder(tmp_path)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("siglip", {"tokens": "cls"}, "expected a CLS token, found none; ask for patches or pooled"),
        ("mae", {"tokens": "pooled"}, "expected a pooled output, found none; ask for cls or patches"),
        ("siglip_naflex", {}, "expected preprocessing to images of one size, found 16×192 and 16×192"),
        ("resnet", {}, "expected a vision transformer, found ResNetModel"),
        ("timm_vit", {}, "transformers cannot read it"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    folder_of: Folders, family: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        encoder(folder_of(family), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_preprocessing_of_another_size_than_the_model_takes(folder_of: Folders, tmp_path: Path) -> None:
    for file in folder_of("clip").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    square = {"height": 48, "width": 48}
    transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=square).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"Input image size \(48\*48\) doesn't match model \(32\*32\)"):
        encoder(tmp_path)
