"""CHAIR: how much of what a caption mentions is not there.

Rohrbach, Hendricks, Burns, Darrell, Saenko, "Object Hallucination in Image Captioning", arXiv 1809.02156, section 2.
CHAIR_i is the share of mentioned objects that are absent; CHAIR_s the share of captions that mention an absent one.
Lower is better; a caption that mentions nothing hallucinates nothing, so read it beside recall.

Differs from the paper: what counts as a mention is the caller's (the paper finds COCO's 80 classes and their synonyms);
a collection with repeats counts every mention, as the paper does, and a set counts an object once a caption.
"""

from collections.abc import Collection, Hashable, Sequence

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate, estimate, ratio


def chair(
    mentioned: Sequence[Collection[Hashable]], present: Sequence[Collection[Hashable]]
) -> tuple[Estimate, Estimate]:
    """CHAIR_i and CHAIR_s over captions, with intervals over captions.

    Args:
        mentioned: the objects each caption mentions.
        present: the objects that are there, caption by caption.
    """
    counts = []
    for said, there in zip(mentioned, present, strict=True):
        absent = sum(thing not in there for thing in said)
        counts.append((absent, len(said), absent > 0, 1))
    statistics = np.array(counts, dtype=np.float64)
    return estimate(statistics, ratio(0, 1)), estimate(statistics, ratio(2, 3))
