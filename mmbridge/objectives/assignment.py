"""Assignment prediction: a medium and what is said of it, each told in words of the LLM, predict the other's.

Bridging Vision and Language Spaces with Assignment Prediction
Jungin Park, Jiyoung Lee, Kwanghoon Sohn, arXiv 2404.09632 (VLAP: words as prototypes, their frequencies as a marginal)

A medium is the mean of its perceptual tokens, a text the mean of the states that the frozen LLM ends with where it
reads the text alone; the words are the LLM's own embeddings. ``mmbridge.transport.assignment`` has the loss.

Symbols: S samples of this process that show a medium, K words, D_llm the width of the LLM's input embeddings.

differs from the paper: its T5 reads texts with an encoder, which a causal LM has none of; its OPT does as here.
Decided here: a sample's first medium is what its text is about, and all that the assistant says is the text. Texts have
no gradient, be there LoRA in the LLM or not.
"""

from collections.abc import Callable

from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.objectives.base import Reads
from mmbridge.objectives.run import BatchRun, showing
from mmbridge.transport.assignment import AssignmentPrediction, word_marginal


class WordAssignment:
    """One term for each sample that shows a medium. Those of a forward pass of all processes are assigned together, so
    that it matters how a step is cut into several.

    Words have to be counted before it runs, in so many ``draws`` of the stage's data. ``figures`` are those of the last
    batch: the ``residual`` of its assignment.

    Args:
        prediction: the loss, for a table of words and the share of each.
        draws: 0 where all words are worth the same.
        softened: whether shares are softmax(frequencies / 0.25) rather than the frequencies themselves.
        shared: whether samples of all processes are assigned together, rather than each for itself.
    """

    def __init__(
        self,
        prediction: Callable[[Tensor, Tensor | None], AssignmentPrediction],
        draws: int,
        *,
        softened: bool,
        shared: bool,
    ) -> None:
        self._prediction, self.draws, self._softened, self.joint = prediction, draws, softened, shared
        self.reads = (Reads("perceived"), Reads("said"), Reads("shared assignment" if shared else "assignment"))
        self._shares: Tensor | None = None
        self.figures: dict[str, float] = {}

    def count(self, frequencies: Tensor) -> None:
        """Takes how often each word is said, (K,) of total 1."""
        self._shares = word_marginal(frequencies) if self._softened else frequencies

    def terms(self, batch: Batch) -> int:
        return len(showing(batch))

    def __call__(self, run: BatchRun) -> Tensor:
        assert self.draws == 0 or self._shares is not None, "the stage's words have not been counted"
        table = run.bridge.llm.words()
        media, texts = run.perceived.means(run.seen), run.said.means()[: len(run.seen)]
        shares = None if self._shares is None else self._shares.to(table.device)
        found = self._prediction(table, shares)(media, texts, run.ranks)
        self.figures = {"residual": found.residual}
        return found.losses.sum() + run.perceived.nothing()
