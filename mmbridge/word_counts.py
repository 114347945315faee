"""How often the texts of a stage say each word of the LLM, for objectives that have to know it before they run."""

import torch
from torch import Tensor

from mmbridge.data.loader import Loader
from mmbridge.data.progress import waited_for
from mmbridge.errors import UserError
from mmbridge.objectives.run import spoken
from mmbridge.objectives.weighted import WeightedObjectives


def count_words(objectives: WeightedObjectives, batches: Loader) -> None:
    """Tells objectives that count words what the stage's first draws say, the same ones in every process."""
    for each in objectives.counting:
        each.count(frequencies(batches, each.draws, objectives.bridge.llm.vocabulary))


def frequencies(batches: Loader, draws: int, words: int) -> Tensor:
    """(K,) of total 1: how much of all that the assistant says in so many draws each of K words is.

    Draws that cannot be used count for nothing; they are told when their batch is made.
    """
    counts = torch.zeros(words, dtype=torch.long)
    samples = batches.drawn(draws)
    for sample in waited_for(samples, "counting words", len(samples)):
        for each in (sample, *sample.others):
            try:
                said = spoken(batches.collate.prompt(each))
            except UserError:
                continue
            counts.index_add_(0, torch.tensor(said), torch.ones(len(said), dtype=torch.long))
    return counts / counts.sum().clamp(min=1)
