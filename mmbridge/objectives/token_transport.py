"""Token transport: a medium's perceptual tokens carried to the words that are said of it, at the least cost.

UNITER: UNiversal Image-TExt Representation Learning
Yen-Chun Chen, Linjie Li, Licheng Yu, Ahmed El Kholy, Faisal Ahmed, Zhe Gan, Yu Cheng, Jingjing Liu, arXiv 1909.11740
(word-region alignment)

Words are the LLM's input embeddings, a step costs 1 − cos, and the LLM does not run;
``mmbridge.transport.token_transport`` has the distances.

Symbols: S samples of this process that show a medium, A of all, L tokens of the longest text.

differs from the paper: there both sides come out of the model, and have a gradient. There the loss is the mean over all
pairs, those that match and those that do not: its weight of 0.1 is 0.05 here.
Decided here: a sample's first medium is what its text is about, and all that the assistant says is the text.
"""

import torch
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.objectives.base import Reads
from mmbridge.objectives.negatives import drawn
from mmbridge.objectives.pairs import matching
from mmbridge.objectives.run import BatchRun, showing
from mmbridge.objectives.words import embedded, padded, texts_of_all
from mmbridge.transport.token_transport import Planner, token_transport


class TokensToWords:
    """One term for each sample that shows a medium: the distance of its tokens from its words.

    With ``contrast`` less their distance from another text. It is drawn with torch's random state from the texts of all
    processes that are about other media, each as likely; where all are about one medium, nothing is taken off.
    ``figures`` are those of the last batch that shows one: the ``residual`` of the plan that is farthest off.

    Args:
        planner: what makes plans of costs; they are held fixed on the way back.
        contrast: whether other texts are held against a medium as well.
    """

    def __init__(self, planner: Planner, *, contrast: bool) -> None:
        self._planner, self.joint = planner, contrast
        self.reads = (Reads("perceived"), Reads("contrasted transport" if contrast else "transport"))
        self.figures: dict[str, float] = {}

    def terms(self, batch: Batch) -> int:
        return len(showing(batch))

    def __call__(self, run: BatchRun) -> Tensor:
        ids, real, signs = _beside_others(run) if self.joint else _alone(run)
        words = embedded(run.bridge.llm, ids)
        if not run.seen:
            return run.perceived.nothing()
        tokens, mask = run.perceived.first(run.seen)
        sides = len(signs)
        found = token_transport(
            tokens.repeat(sides, 1, 1), mask.repeat(sides, 1), words, real.to(words.device), self._planner
        )
        self.figures = {"residual": float(found.residual.max())}
        return (found.distances.view(sides, -1) * signs.to(words.device)).sum() + run.perceived.nothing()


def _alone(run: BatchRun) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (S, L) of the texts and where they are real, and what each distance counts for: (1, S)."""
    return *padded(texts_of_all(run.texts)), torch.ones(1, len(run.seen))


def _beside_others(run: BatchRun) -> tuple[Tensor, Tensor, Tensor]:
    """The same, (2·S, L) and (2, S), with the texts drawn below; L is that of all processes."""
    ranks, count = run.ranks, len(run.seen)
    first = sum(int(each) for each in ranks.gather(torch.tensor(count))[: ranks.rank])
    own, alike = torch.arange(first, first + count), matching(_media(run.batch), ranks)
    ids, real = padded(texts_of_all(run.texts, ranks))
    chosen = torch.cat([own, drawn(torch.zeros(alike.shape), alike) if run.seen else own])
    there = (~alike.all(dim=1)).float()
    return ids[chosen], real[chosen], torch.stack([torch.ones_like(there), -there])


def _media(batch: Batch) -> Tensor:
    """(S,), equal where samples show the same medium first."""
    known = zip(batch.prompts, batch.media, strict=True)
    shown = [(prompt.placeholders[0].medium, numbers[0]) for prompt, numbers in known if numbers]
    return torch.tensor([shown.index(each) for each in shown], dtype=torch.long)
