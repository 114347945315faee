"""Pretrains the embedded world's self-supervised ViT: ``python -m mmbridge.recipes.world_mae OUT``.

Masked autoencoding (MAE, He et al. 2022, arXiv 2111.06377) with transformers' ``ViTMAEForPreTraining``: no text, no
labels. Differs from the paper: plain pixels rather than per-patch normalised ones are predicted (colour is what
scenes are about), and half of the patches are masked, since an object here covers only a handful of them.
The whole ``ViTMAEForPreTraining`` is saved, in transformers' format: an encoder of kind ``transformers`` reads its
encoder, and the objective ``reconstruction`` its decoder too.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

from mmbridge.data.world.render import SIDE
from mmbridge.recipes.world_pretraining import MEAN, PATCH, STD, best_device, optimise, pictures, save_bfloat16


def batches(count: int, size: int, device: torch.device, workers: int) -> Iterator[Tensor]:
    """Endless normalised images (B, 3, SIDE, SIDE)."""
    pixels, _ = pictures(count, seed=0, workers=workers)
    pixels = pixels.to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator).to(device)
        for start in range(0, count, size):
            yield (pixels[order[start : start + size]].float() / 255 - mean) / std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20, help="training time")
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()

    torch.manual_seed(0)
    device = best_device()
    config = ViTMAEConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=128, num_hidden_layers=5, num_attention_heads=4,
        intermediate_size=512, decoder_hidden_size=128, decoder_num_hidden_layers=3, decoder_num_attention_heads=4,
        decoder_intermediate_size=512, mask_ratio=0.5, norm_pix_loss=False,
    )  # fmt: skip
    model = ViTMAEForPreTraining(config)
    # transformers leaves the decoder's positions at zero, so that it would predict every hidden patch alike
    model.decoder.initialize_weights((SIDE // PATCH) ** 2)
    model.to(device)  # type: ignore[arg-type]

    def loss_of(batch: Tensor) -> dict[str, Tensor]:
        return {"pixels": model(pixel_values=batch).loss}

    given.out.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        save_bfloat16(model.state_dict(), given.out / "model.safetensors")

    stream = batches(given.scenes, given.batch, device, given.workers)
    optimise(model, stream, loss_of, minutes=given.minutes, lr=given.lr, save=save)
    config.architectures = ["ViTMAEForPreTraining"]
    config.dtype = "bfloat16"
    config.save_pretrained(given.out)
    ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=list(MEAN), image_std=list(STD), do_resize=True
    ).save_pretrained(given.out)


if __name__ == "__main__":
    main()
