"""The text tower of a CLIP model, for methods that compare images with words.

Learning Transferable Visual Models From Natural Language Supervision
Alec Radford, Jong Wook Kim, Chris Hallacy, Aditya Ramesh, Gabriel Goh, Sandhini Agarwal, Girish Sastry, Amanda Askell,
Pamela Mishkin, Jack Clark, Gretchen Krueger, Ilya Sutskever, arXiv 2103.00020
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mmbridge.errors import RecipeError
from mmbridge.frozen import check_complete, freeze, locate, quietly, reading, safetensors_in


class CLIPTextTower(nn.Module, ABC):
    """Texts to embeddings in the space that the CLIP model's images share; frozen like every encoder."""

    width: int

    @abstractmethod
    def embed(self, texts: list[str]) -> Tensor:
        """(B, D), projected, of any length."""

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts to (B, D) of unit length; a text longer than the tower reads is cut at its end."""
        return nn.functional.normalize(self.embed(list(texts)), dim=-1)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode whatever the parent does."""
        return super().train(False)


class _OpenCLIPText(CLIPTextTower):
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        import open_clip

        from mmbridge.encoders.open_clip import load_open_clip

        super().__init__()
        self.model = load_open_clip(folder)
        del self.model.visual
        freeze(self.model.to(dtype))
        with reading(folder, "open_clip"):
            self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.width = self.embed([""]).shape[-1]

    def embed(self, texts: list[str]) -> Tensor:
        device = next(self.model.parameters()).device
        embeddings: Tensor = self.model.encode_text(self.tokenizer(texts).to(device))  # type: ignore[operator]
        return embeddings


class _TransformersText(CLIPTextTower):
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

        super().__init__()
        safetensors_in(folder)
        with reading(folder, "transformers"), quietly():
            whole = AutoConfig.from_pretrained(folder, local_files_only=True)
            if whole.model_type not in {"clip", "clip_text_model"}:
                raise RecipeError(folder, f"expected a CLIP model, found {whole.model_type}")
            config = getattr(whole, "text_config", whole)
            config.projection_dim = whole.projection_dim  # a whole CLIP's text section need not say it right
            options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, "local_files_only": True}
            loaded: Any = CLIPTextModelWithProjection.from_pretrained(
                folder, config=config, dtype=dtype, ignore_mismatched_sizes=True, **options
            )
            model, report = loaded
            check_complete(folder, report)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = freeze(model)
        self.width = model.config.projection_dim

    def embed(self, texts: list[str]) -> Tensor:
        length = self.model.config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        embeddings: Tensor = self.model(**tokens.to(self.model.device)).text_embeds
        return embeddings


def clip_text_tower(
    path: str, revision: str | None = None, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
) -> CLIPTextTower:
    """The text tower of an open_clip folder or of a transformers CLIP one, told apart by their configurations.

    Raises:
        RecipeError: there is no such folder, or it holds no CLIP text tower in safetensors.
    """
    folder = locate(path, revision)
    native = (folder / "open_clip_config.json").is_file()
    return (_OpenCLIPText if native else _TransformersText)(folder, getattr(torch, dtype))
