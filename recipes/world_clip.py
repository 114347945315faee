"""Pretrains the embedded world's CLIP-style ViT by open_clip: ``python -m mmbridge.recipes.world_clip OUT``.

Four published losses, so that tokens keep what is where: image–caption contrast (CLIP, Radford et al. 2021,
arXiv 2103.00020); captioning by a small decoder over the patch tokens (CoCa, Yu et al. 2022, arXiv 2205.01917);
contrast of the tokens inside an object with the phrase that names it (RegionCLIP, Zhong et al. 2022,
arXiv 2112.09106); and a linear readout of each patch's own pixels. The captioner and the readouts are thrown away:
what is saved is a plain open_clip model. Scenes come from the ``train`` split, without the held-out combinations.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from open_clip.model import CLIP
from tokenizers import processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from mmbridge.data.world.language import caption
from mmbridge.data.world.render import SIDE
from mmbridge.data.world.scene import SEEN
from mmbridge.data.world.vocabulary import SIZES, TEXTURES
from mmbridge.recipes.world_pretraining import (
    MEAN,
    PATCH,
    STD,
    best_device,
    insides,
    optimise,
    pictures,
    save_bfloat16,
)

SIDE_TOKENS = SIDE // PATCH
CONTEXT = 56
REGIONS = 48
"""Objects a step that take part in the region–phrase contrast."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
PHRASES = [
    " ".join(word for word in (size, texture, colour, shape) if word != "plain")
    for (colour, shape), size, texture in itertools.product(SEEN, SIZES, TEXTURES)
]
"""Every object phrase the training split can show."""


def model_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """The ``model_cfg`` that open_clip builds the model from, and reads back from the saved folder."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIDE, "patch_size": PATCH, "width": 160, "layers": 5, "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": len(tokenizer), "width": 96, "heads": 3, "layers": 2,
            "pool_type": "eos", "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id,
            "hf_tokenizer_name": "the tokenizer beside this file",
        },
    }  # fmt: skip


class Pretraining(nn.Module):
    """The four losses over one open_clip model; everything of it but ``clip`` is discarded afterwards."""

    phrases: Tensor

    def __init__(self, clip: CLIP, vocabulary: int, phrases: Tensor, pad: int) -> None:
        super().__init__()
        self.clip, self.pad = clip, pad
        width = clip.visual.ln_post.normalized_shape[0]
        self.words = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.words.weight, std=0.02)
        self.places = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        layer = nn.TransformerDecoderLayer(width, 5, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.captioner = nn.TransformerDecoder(layer, 1, nn.LayerNorm(width))
        self.norm = nn.LayerNorm(width)
        self.region = nn.Linear(width, clip.text_projection.shape[1])
        self.pixels = nn.Linear(width, 3 * PATCH * PATCH)
        self.register_buffer("phrases", phrases)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of ``(images (B, 3, H, W), caption ids (B, L), object masks (B, 4, N), phrase ids (B, 4))``."""
        images, texts, inside, phrase = batch
        visual = self.clip.visual
        tokens = visual.transformer(visual._embeds(images))
        pooled = F.normalize(visual.ln_post(tokens[:, 0]) @ visual.proj, dim=-1)
        patches = self.norm(tokens[:, 1:])
        written = self.clip.encode_text(texts, normalize=True)
        scale = self.clip.logit_scale.exp().clamp(max=100)
        logits = scale * pooled @ written.T
        same = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits.float(), same) + F.cross_entropy(logits.float().T, same)) / 2

        rows, slots = (phrase >= 0).nonzero(as_tuple=True)
        chosen = torch.randperm(len(rows), device=rows.device)[:REGIONS]
        rows, slots = rows[chosen], slots[chosen]
        inside, names = inside[rows, slots], phrase[rows, slots]
        share = inside / inside.sum(-1, keepdim=True)
        regions = F.normalize(self.region((share[..., None] * patches[rows]).sum(1)), dim=-1)
        named = scale * regions @ self.clip.encode_text(self.phrases[names], normalize=True).T
        twins = (names[:, None] == names[None]) & ~torch.eye(len(names), dtype=torch.bool, device=names.device)
        region = F.cross_entropy(named.float().masked_fill(twins, -1e4), torch.arange(len(names), device=names.device))

        length = texts.shape[1] - 1
        ahead = nn.Transformer.generate_square_subsequent_mask(length, device=texts.device)
        said = self.captioner(
            self.words(texts[:, :-1]) + self.places[:length], patches, tgt_mask=ahead, tgt_is_causal=True
        )
        spoken = said @ self.words.weight.T
        captioning = F.cross_entropy(spoken.flatten(0, 1).float(), texts[:, 1:].flatten(), ignore_index=self.pad)

        truth = F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)
        local = F.mse_loss(self.pixels(patches).float(), truth.float())
        return {"contrast": 0.5 * contrast, "region": region, "caption": captioning, "pixels": 0.5 * local}


def batches(
    tokenizer: PreTrainedTokenizerFast, count: int, size: int, device: torch.device, workers: int
) -> Iterator[Batch]:
    """Endless (images, caption ids, object masks, phrase ids)."""
    pixels, scenes = pictures(count, seed=0, workers=workers)
    encoded = tokenizer([caption(s) for s in scenes], padding="max_length", max_length=CONTEXT)
    texts = torch.tensor(encoded["input_ids"])
    inside = insides(scenes, SIDE_TOKENS)
    index = {phrase: i for i, phrase in enumerate(PHRASES)}
    phrase = torch.full((count, 4), -1)
    for row, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.objects):
            words = (thing.size, thing.texture, thing.colour, thing.shape)
            phrase[row, slot] = index[" ".join(word for word in words if word != "plain")]
    held = [tensor.to(device) for tensor in (pixels, texts, inside, phrase)]
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    print(f"{count} scenes", flush=True)
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            chosen = order[start : start + size].to(device)
            images, text, mask, names = (tensor[chosen] for tensor in held)
            yield (images.float() / 255 - mean) / std, text, mask.float(), names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the language model's folder")
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()

    torch.manual_seed(0)
    device = best_device()
    tokenizer = clip_tokenizer(given.tokenizer)
    config = model_config(tokenizer)
    clip = CLIP(**config)
    phrases = tokenizer(PHRASES, padding="max_length", max_length=CONTEXT, return_tensors="pt")["input_ids"]
    task = Pretraining(clip, len(tokenizer), phrases, tokenizer.pad_token_id).to(device)
    print(f"{sum(p.numel() for p in clip.parameters()) / 1e6:.2f} M parameters are kept", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    written = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    (given.out / "open_clip_config.json").write_text(written + "\n")
    tokenizer.save_pretrained(given.out)

    def save() -> None:
        save_bfloat16(clip.state_dict(), given.out / "open_clip_model.safetensors")

    stream = batches(tokenizer, given.scenes, given.batch, device, given.workers)
    optimise(task, stream, task, minutes=given.minutes, lr=given.lr, save=save)


def clip_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The language model's tokenizer, with the start and end marks that the text tower pools by."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    ends = [(tokenizer.bos_token, tokenizer.bos_token_id), (tokenizer.eos_token, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A {tokenizer.eos_token}", special_tokens=ends
    )
    return tokenizer


if __name__ == "__main__":
    main()
