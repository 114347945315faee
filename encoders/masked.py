"""Masked autoencoding with an encoder and the decoder it was trained with.

Masked Autoencoders Are Scalable Vision Learners
Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollár, Ross Girshick, arXiv 2111.06377

Symbols: V views, L patches of a view, K of them visible, D the encoder's width, P numbers of a patch (its pixels in
every channel).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, ViTMAEForPreTraining, ViTMAEModel

from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.frozen import check_complete, freeze, quietly, reading

_SMALLEST = 1e-6
"""Added to the variance of a patch, as in MAE's released code."""


@dataclass(frozen=True, slots=True)
class Masking:
    """Which patches are seen: ``order`` (V, L) are their numbers, the first ``visible`` of them seen."""

    order: Tensor
    visible: int

    @classmethod
    def drawn(cls, views: int, patches: int, visible: int, device: torch.device) -> "Masking":
        """At random, with torch's random state."""
        return cls(torch.rand(views, patches, device=device).argsort(dim=1), visible)

    @property
    def hidden(self) -> Tensor:
        """(V, L), true where a patch is not seen."""
        return self.order.argsort(dim=1) >= self.visible


class MaskedDecoder(nn.Module):
    """The frozen decoder of a masked autoencoder, read from its encoder's own checkpoint.

    Args:
        encoder: a ViT-MAE of transformers, tapped where it ends: all tokens of the last layer, normed.
        key: where the encoder stands in its recipe, for errors.

    Raises:
        RecipeError: it is another encoder, tapped elsewhere, or its checkpoint has no decoder.
    """

    def __init__(self, encoder: VisionEncoder, key: str) -> None:
        super().__init__()
        folder = encoder.folder
        if not isinstance(encoder.model, ViTMAEModel):
            problem = f"expected a masked autoencoder of transformers (ViT-MAE), found {type(encoder.model).__name__}"
            raise RecipeError(f"{key}.path", problem, "name one such as facebook/vit-mae-huge or world:mae")
        if (encoder.taps, encoder.tokens, encoder.norm) != ((encoder.depth,), "all", True):
            problem = "expected what its decoder reads: all tokens of the last layer, normed"
            raise RecipeError(key, problem, "set layer to -1, tokens to all and norm to true")
        with reading(folder, "transformers"), quietly():
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            config = AutoConfig.from_pretrained(folder, **options)
            config.num_hidden_layers = 0  # the encoder is there already
            options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
            loaded: Any = ViTMAEForPreTraining.from_pretrained(folder, config=config, dtype=torch.float32, **options)
            whole, report = loaded
        if any(name.startswith("decoder.") for name in report["missing_keys"]):
            problem = "expected the checkpoint of a masked autoencoder with its decoder, found the encoder alone"
            raise RecipeError(f"{key}.path", problem)
        check_complete(folder, report)
        like = next(encoder.model.parameters())
        self.decoder = freeze(whole.decoder.to(like.device, like.dtype))
        self.patches, self.normed = encoder.cells, bool(config.norm_pix_loss)
        self._patchify = whole.patchify

    def train(self, mode: bool = True) -> "MaskedDecoder":
        """Stays in evaluation mode whatever the parent does."""
        return super().train(False)

    def visible(self, hidden: float) -> int:
        """K, where this share of the patches is hidden: as many as transformers leaves."""
        return int(self.patches * (1 - hidden))

    def forward(self, seen: Tensor, masking: Masking) -> Tensor:
        """(V, 1 + K, D), CLS and the visible patches in their order, to patches (V, L, P), hidden ones among them."""
        values = seen.to(self.decoder.mask_token.dtype)
        found: Tensor = self.decoder(values, masking.order.argsort(dim=1)).logits
        return found

    def errors(self, seen: Tensor, masking: Masking, pixels: Tensor) -> Tensor:
        """(V, L) in float32: of each patch the mean squared error of what is made of the visible ones.

        Args:
            seen: (V, 1 + K, D).
            masking: which they are.
            pixels: (V, C, H, W), normalised, in float32.
        """
        target: Tensor = self._patchify(pixels)
        if self.normed:
            centred = target - target.mean(dim=-1, keepdim=True)
            target = centred / (target.var(dim=-1, keepdim=True) + _SMALLEST).sqrt()
        found: Tensor = self(seen, masking)
        return (found.float() - target).square().mean(dim=-1)


@torch.no_grad()
def seen_patches(encoder: VisionEncoder, pixels: Tensor, masking: Masking) -> Tensor:
    """What a ViT-MAE makes of the visible patches alone: (V, C, H, W), normalised, to (V, 1 + K, D), CLS first."""
    model = encoder.model
    assert isinstance(model, ViTMAEModel)
    kept = torch.cat([torch.zeros_like(masking.order[:, :1]), 1 + masking.order[:, : masking.visible]], dim=1)

    def only_visible(_: nn.Module, __: Any, found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens, *others = found
        return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1])), *others

    like, rising = next(model.parameters()), torch.arange(masking.order.shape[1], device=pixels.device)
    hook = model.embeddings.register_forward_hook(only_visible)
    try:
        output = model(pixel_values=pixels.to(like), noise=rising.expand(len(pixels), -1))
    finally:
        hook.remove()
    found: Tensor = output.last_hidden_state
    return found
