"""open_clip's vision tower in transformers' form: the same network, or a refusal."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_model

from mmbridge.encoders.config import OpenCLIPConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.llava.tower import clip_from_open_clip, tower_part
from tests.encoders.models import picture, randomise, seen

COLOURS: dict[str, Any] = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}


def encoder(
    folder: Path, preprocess: dict[str, Any] | None = None, quick_gelu: bool = False, **vision: Any
) -> VisionEncoder:
    """A tiny random open_clip tower, all of whose tokens leave its last block."""
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    body = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 3} | vision
    model = {"embed_dim": 24, "quick_gelu": quick_gelu, "vision_cfg": body, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": COLOURS | (preprocess or {})}
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    randomise(made)
    save_model(made, str(folder / "open_clip_model.safetensors"))
    return OpenCLIPConfig(path=str(folder), tokens="all").build()


@pytest.mark.parametrize(
    "options",
    [{}, {"quick_gelu": True}, {"mlp_ratio": 2.0}, {"patch_size": 4}, {"pos_embed_type": "sin_cos_2d"}],
    ids=lambda options: "+".join(options) or "plain",
)
def test_hidden_states_are_equal(options: dict[str, Any], tmp_path: Path) -> None:
    """open_clip's own intermediates against CLIPVisionModel's hidden_states, each block."""
    ours = encoder(tmp_path, **options)
    theirs = clip_from_open_clip("encoders.image", ours)
    pixels = torch.randn(2, 3, 32, 32)
    visual: Any = ours.model
    with torch.no_grad():
        found = theirs(pixels, output_hidden_states=True).hidden_states
        expected = visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
    for block, state in enumerate(found[1:]):
        tokens = [expected[name][block] for name in ("image_intermediates_prefix", "image_intermediates")]
        torch.testing.assert_close(state, torch.cat(tokens, dim=1), rtol=1e-5, atol=1e-5)
    assert theirs.config.hidden_act == ("quick_gelu" if options.get("quick_gelu") else "gelu")


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ({"ls_init_value": 0.1}, "ls_1.gamma"),
        ({"no_ln_pre": True}, "pre_layrnorm"),
        ({"act_kwargs": {"approximate": "tanh"}}, "their last hidden states differ by"),
    ],
)
def test_another_network_is_refused_in_one_line(options: dict[str, Any], detail: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=detail) as caught:
        clip_from_open_clip("encoders.image", encoder(tmp_path, **options))
    assert str(caught.value).startswith(
        "encoders.image.path: open_clip's vision tower is not the ViT of transformers' CLIP"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_prepared_alike(mode: str, interpolation: str, tmp_path: Path) -> None:
    """Equal where nothing is resized, within a grey level (and the half behind it) where something is."""
    ours = encoder(tmp_path, {"resize_mode": mode, "interpolation": interpolation})
    part = tower_part("encoders.image", OpenCLIPConfig(path=str(tmp_path), tokens="all"), ours)
    for size in ((32, 32), (64, 64), (64, 48)):
        image = picture(*size)
        expected = seen(ours, image)[0]
        found = part.processor(images=image, return_tensors="pt")["pixel_values"][0]
        levels = (found - expected).abs().amax((1, 2)) * torch.tensor(COLOURS["std"]) * 255
        assert levels.max() < (1e-3 if size == (32, 32) else 1.5), size


def test_preprocessing_without_counterpart_is_refused(tmp_path: Path) -> None:
    ours = encoder(tmp_path, {"resize_mode": "longest"})
    with pytest.raises(RecipeError, match="no preprocessing like open_clip's longest to 32×32"):
        tower_part("encoders.image", OpenCLIPConfig(path=str(tmp_path), tokens="all"), ours)
