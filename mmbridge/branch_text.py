"""What a connector's text branch reads of a sample."""

from dataclasses import dataclass

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmbridge.connectors.branch_tokens import BranchTokenizer
from mmbridge.connectors.config import ResamplerConfig, qformer_of
from mmbridge.data.sample import Sample
from mmbridge.errors import DataError, RecipeError
from mmbridge.frozen import locate, quietly, reading
from mmbridge.llm.prompt import PLACEHOLDERS


@dataclass(frozen=True, slots=True)
class SaidText:
    """The assistant's first words, as token ids. Goes to loader workers."""

    branch: BranchTokenizer

    def __call__(self, sample: Sample) -> tuple[int, ...]:
        """Raises:
        DataError: with the sample's id: the assistant says nothing.
        """
        said = next((message for message in sample.messages if message.role == "assistant"), None)
        words = " ".join(part.strip() for part in (said.content if said else ()) if isinstance(part, str)).strip()
        if not words:
            raise DataError(f"sample {sample.id}", "expected a text beside the medium, found none")
        return self.branch(words)


def _words(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many words a tokenizer has without the placeholders put behind them, which no text says."""
    placeholders = {tokenizer.convert_tokens_to_ids(each) for each in PLACEHOLDERS.values()}
    words = len(tokenizer)
    while words - 1 in placeholders:
        words -= 1
    return words


def branch_tokenizer(config: ResamplerConfig, own: PreTrainedTokenizerBase, key: str) -> BranchTokenizer | None:
    """Of a resampler with a text branch; ``None`` for others.

    Args:
        own: the LLM's, where the branch has none.
        key: where the resampler stands in its recipe, for errors.

    Raises:
        RecipeError: no such tokenizer, or the branch has not as many words.
    """
    qformer = qformer_of(config)
    if qformer is None or qformer.text is None:
        return None
    text = qformer.text
    tokenizer = own
    if text.tokenizer is not None:
        folder = locate(text.tokenizer, text.revision)
        with reading(folder, "transformers"), quietly():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    branch = BranchTokenizer(tokenizer, text.length, _words(tokenizer))
    if branch.vocabulary != text.vocabulary:
        problem = f"expected {branch.vocabulary}, the words of the tokenizer and of the branch, found {text.vocabulary}"
        inside = key if qformer is config else f"{key}.qformer"
        raise RecipeError(f"{inside}.text.vocabulary", problem)
    return branch
