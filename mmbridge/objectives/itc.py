"""Image–text contrast: each medium finds its text among those of the batch, and each text its medium.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597

Symbols: S pairs of this process, A of all of them.

differs from the released code: texts about one medium are all right for it, and share what is not smoothed away (there
so in fine-tuning for retrieval, where media have ids); and negatives of other processes have a gradient.
"""

from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.objectives.base import Reads
from mmbridge.objectives.queried import places
from mmbridge.objectives.run import BatchRun


class ImageTextContrast:
    """One term for each pair: ½ [CE of its text for its medium + CE of its medium for its text].

    Args:
        connector: whose text branch it is.
        medium: the kind it reads.
        smoothing: share of the target that is spread over all A.
    """

    joint = True

    def __init__(self, connector: str, medium: MediumKind, smoothing: float) -> None:
        self._connector, self._medium, self._smoothing = connector, medium, smoothing
        self.reads = (Reads("similarities", connector),)

    def terms(self, batch: Batch) -> int:
        return len(places(batch, self._medium))

    def __call__(self, run: BatchRun) -> Tensor:
        pairs = run.pairs(self._connector)
        right = pairs.matching.float()
        spread = self._smoothing / max(1, right.shape[1])
        targets = (1 - self._smoothing) * right / right.sum(dim=1, keepdim=True) + spread
        logits = (each.float() / pairs.heads.temperature for each in (pairs.to_texts, pairs.to_images))
        return sum((-(targets * each.log_softmax(dim=1)).sum() / 2 for each in logits), start=targets.new_zeros(()))
