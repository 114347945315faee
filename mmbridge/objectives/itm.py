"""Image–text matching: whether a text is about a medium, judged by the queries that read both.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597

Each pair stands beside two that do not match: its text with another medium, and its medium with another text, both
drawn from the pairs of all processes, more likely the nearer they are in the space of ``itc``.

Symbols: S pairs of this process, A of all.

differs from the released code: a text about the same medium is never drawn, be it another pair's.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.objectives.base import Reads
from mmbridge.objectives.negatives import Negatives, drawn
from mmbridge.objectives.queried import joint_details, places
from mmbridge.objectives.run import BatchRun


class ImageTextMatching:
    """Three terms for each pair; the two that do not match are worth nothing where all pairs show one medium.

    Args:
        connector: whose text branch it is.
        medium: the kind it reads.
    """

    joint = True

    def __init__(self, connector: str, medium: MediumKind) -> None:
        self._connector, self._medium = connector, medium
        self.reads = (Reads("matches", connector),)

    def terms(self, batch: Batch) -> int:
        return 3 * len(places(batch, self._medium))

    def __call__(self, run: BatchRun) -> Tensor:
        """Draws negatives with torch's random state."""
        pairs = run.pairs(self._connector)
        queried, real = pairs.queried, pairs.queried.real
        rows = torch.arange(len(queried.medium), device=queried.medium.device)
        negatives, matching, temperature = Negatives(pairs, run.ranks), pairs.matching, pairs.heads.temperature
        near = ((each / temperature).detach() for each in (pairs.to_images, pairs.to_texts))
        media, texts = (drawn(each, matching) if real else rows for each in near)
        image, details = queried.image.of(queried.medium), queried.details and queried.details.of(queried.medium)
        own = pairs.ids, pairs.mask
        ids, mask = negatives.texts([own, own, negatives.text(texts)])
        passed = queried.qformer.read("both", image.above(negatives.image(media)).above(image), ids, mask)
        states = queried.ended(passed, joint_details([details, negatives.details(media), details]))
        logits = pairs.heads.matches(states).float()
        labels = torch.cat([torch.ones_like(rows), torch.zeros_like(rows), torch.zeros_like(rows)])
        there = ~matching.all(dim=1) if real else torch.zeros_like(rows, dtype=torch.bool)
        counts = torch.cat([torch.full_like(there, real), there, there]).float()
        return (functional.cross_entropy(logits, labels, reduction="none") * counts).sum()
