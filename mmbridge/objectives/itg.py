"""Image-grounded text generation: each token of a text from the queries and the tokens before it.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597

The text does not see the medium: what there is to say of it must have gone through the queries, whose keys and values
are those of the pass that ``itc`` makes.

Symbols: S pairs, L text tokens, P predicted ones, K words.
"""

from torch import Tensor
from torch.nn import functional

from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.objectives.base import Reads
from mmbridge.objectives.queried import places
from mmbridge.objectives.run import BatchRun


class ImageGroundedGeneration:
    """One term for each token of a text but the one that stands for its beginning.

    Args:
        connector: whose text branch it is.
        medium: the kind it reads.
        smoothing: share of the target that is spread over all words.
    """

    joint = False

    def __init__(self, connector: str, medium: MediumKind, smoothing: float) -> None:
        self._connector, self._medium, self._smoothing = connector, medium, smoothing
        self.reads = (Reads("words", connector),)

    def terms(self, batch: Batch) -> int:
        return sum(len(batch.texts[self._connector][sample]) - 1 for sample, _ in places(batch, self._medium))

    def __call__(self, run: BatchRun) -> Tensor:
        pairs = run.pairs(self._connector)
        queried, qformer, kept = pairs.queried, pairs.queried.qformer, pairs.queried.queries.kept
        assert kept is not None
        ids = pairs.ids.clone()
        ids[:, 0] = run.bridge.branches[self._connector].generate
        states = qformer.read("causal", ids=ids, text_mask=pairs.mask, kept=kept.of(queried.medium)).text
        assert states is not None
        predicted = pairs.mask[:, 1:] & queried.real
        logits = pairs.heads.words(states[:, :-1][predicted], qformer.table)
        smoothing = self._smoothing
        return functional.cross_entropy(
            logits.float(), ids[:, 1:][predicted], reduction="sum", label_smoothing=smoothing
        )
