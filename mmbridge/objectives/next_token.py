"""Cross-entropy of every supervised token given all before it: the loss of every causal language model."""

from torch import Tensor
from torch.nn import functional

from mmbridge.data.batch import Batch
from mmbridge.objectives.base import Reads
from mmbridge.objectives.run import BatchRun


class NextToken:
    """One term for each supervised token that something stands in front of."""

    joint = False
    reads = (Reads("answers"),)

    def terms(self, batch: Batch) -> int:
        """Supervised tokens; one that begins its row has nothing that predicts it."""
        return sum(sum(prompt.supervised[1:]) for prompt in batch.prompts)

    def __call__(self, run: BatchRun) -> Tensor:
        """Logits (S, V) in any dtype and targets (S,) to their summed cross-entropy."""
        return functional.cross_entropy(run.output.logits.float(), run.output.targets, reduction="sum")
