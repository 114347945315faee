"""One linear map from the encoder's space to the LLM's.

Linearly Mapping from Image to Text Space
Jack Merullo, Louis Castricato, Carsten Eickhoff, Ellie Pavlick, arXiv 2209.15162 (LiMBeR, with dropout 0.1)

Visual Instruction Tuning
Haotian Liu, Chunyuan Li, Qingyang Wu, Yong Jae Lee, arXiv 2304.08485 (without)
"""

from torch import Tensor, nn


class Linear(nn.Module):
    """(…, D_c) to (…, D_llm). Weight and bias start as torch's ``nn.Linear`` does: uniform within 1/√D_c."""

    def __init__(self, width_in: int, width_out: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.linear(values))
        return out
