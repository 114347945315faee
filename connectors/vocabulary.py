"""Every token a mixture of the LLM's own words: inside their convex hull, where the LLM was trained.

AlignVLM: Bridging Vision and Language Latent Spaces for Multimodal Document Understanding
Ahmed Masry, Juan A. Rodriguez, Tianyu Zhang, Suyuchen Wang, Chao Wang, Aarash Feizi, Akshay Kalkunte Suresh,
Abhay Puri, Xiangru Jian, Pierre-André Noël, Sathwik Tejaswi Madhusudhan, Marco Pedersoli, Bang Liu, Nicolas Chapados,
Yoshua Bengio, Enamul Hoque, Christopher Pal, Issam H. Laradji, David Vazquez, Perouz Taslakian, Spandana Gella,
Sai Rajeswar, arXiv 2502.01341

    softmax(LayerNorm(W₂ LayerNorm(W₁ f))) E    with E the word embeddings and W₂ beginning as the LLM's output head

Decided here, as the paper's formula leaves it open: the first map has a bias, the second none, as output heads have
none, and both norms have gains and biases.

Symbols: R tokens, K words, D_c → D_llm widths.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 256
"""Tokens whose mixtures are made at a time: over 150,000 words, 154 MB in float32 for each tensor of them."""


class Vocabulary(nn.Module):
    """(…, D_c) to (…, D_llm) in the table's dtype, autocast aside.

    The first map and the norms start as torch starts them. Mixtures are made a chunk of tokens at a time, and made
    again for the backward pass, so that memory does not grow with tokens × words.

    Args:
        width_in: D_c.
        table: E (K, D_llm), the frozen word embeddings. They stay the LLM's: neither parameter nor buffer here, so they
            are not saved with the connector, and moved by whoever moves the LLM.
        head: W₂ at the start (K, D_llm), which is copied; the table itself where left out, as in LLMs that tie the two.
        scale: what the LLM multiplies its word embeddings by.
        chunk: tokens at a time.
    """

    def __init__(
        self, width_in: int, table: Tensor, *, head: Tensor | None = None, scale: float = 1.0, chunk: int = CHUNK
    ) -> None:
        super().__init__()
        self._scale = scale
        words, width = table.shape
        self._table, self._chunk = (table,), chunk  # a tuple hides it from the module's registry
        self.linear = nn.Linear(width_in, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head_norm = nn.LayerNorm(words)
        with torch.no_grad():
            self.head.weight.copy_(table if head is None else head)

    @property
    def mixed(self) -> int:
        """Multiply-adds of a token's mixture, and of its logits, which are computed again for the backward pass."""
        return self.head.weight.numel()

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.norm(self.linear(values))
        parts = hidden.flatten(0, -2).split(self._chunk)
        made = [checkpoint(self._mixture, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return torch.cat(made).view(hidden.shape)

    def weights(self, values: Tensor) -> Tensor:
        """How much of each word is in a token: (…, D_c) to (…, K), not negative, 1 in all; all tokens at once."""
        return self._weights(self.norm(self.linear(values)))

    def _weights(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head_norm(self.head(hidden))
        return torch.softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def _mixture(self, hidden: Tensor) -> Tensor:
        """(R, D_llm) to (R, D_llm)."""
        table = self._table[0].detach()
        return self._weights(hidden).to(table.dtype) @ table * self._scale
