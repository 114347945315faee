"""Cross-entropy of every supervised token given all before it: the loss of every causal language model."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from mmbridge.data.batch import Batch

if TYPE_CHECKING:
    from mmbridge.bridge import BridgeOutput


class NextToken:
    """One term for each supervised token that something stands in front of."""

    def terms(self, batch: Batch) -> int:
        """Supervised tokens; one that begins its row has nothing that predicts it."""
        return sum(sum(prompt.supervised[1:]) for prompt in batch.prompts)

    def __call__(self, output: "BridgeOutput", batch: Batch) -> Tensor:
        """``output.logits`` (S, V) in any dtype and ``output.targets`` (S,) to their summed cross-entropy."""
        return functional.cross_entropy(output.logits.float(), output.targets, reduction="sum")
