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
from mmbridge.objectives.negatives import Negatives, drawn
from mmbridge.objectives.pairs import places
from mmbridge.objectives.run import BatchRun


class ImageTextMatching:
    """Three terms for each pair; one, where its process has no second medium.

    Args:
        connector: whose text branch it is.
        medium: the kind it reads.
    """

    joint = True

    def __init__(self, connector: str, medium: MediumKind) -> None:
        self._connector, self._medium = connector, medium

    def terms(self, batch: Batch) -> int:
        shown = [number for _, number in places(batch, self._medium)]
        return len(shown) * (3 if len({*shown}) > 1 else 1)

    def __call__(self, run: BatchRun) -> Tensor:
        """Draws negatives with torch's random state."""
        pairs, count = run.pairs(self._connector), run.pairs(self._connector).count
        image, ids, mask = pairs.image.of(pairs.medium), pairs.ids, pairs.mask
        with torch.no_grad():
            temperature, negatives = pairs.heads.temperature, Negatives(pairs, run.ranks)
            near = [each / temperature for each in (pairs.to_images, pairs.to_texts)]
        if len({*pairs.medium.tolist()}) > 1:
            media, texts = (drawn(each, pairs.matching) for each in near)
            ids, mask = negatives.texts([(ids, mask), (ids, mask), negatives.text(texts)])
            image = image.above(negatives.image(media)).above(image)
        queries = pairs.resampler.read("both", image, ids, mask).queries
        assert queries is not None
        logits = pairs.heads.matches(queries).float()[: len(queries) if pairs.real else 0]
        targets = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        targets[:count] = 1
        return functional.cross_entropy(logits, targets, reduction="sum")
