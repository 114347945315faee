"""What a connector's text branch reads of a sample: what the assistant says of a medium, or what it is asked."""

from dataclasses import dataclass

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmbridge.connectors.branch_tokens import BranchTokenizer
from mmbridge.connectors.config import ResamplerConfig, qformer_of
from mmbridge.data.sample import Message, Sample
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
        words = _said(said)
        if not words:
            raise DataError(f"sample {sample.id}", "expected a text beside the medium, found none")
        return self.branch(words)


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the user says in the turn in which a medium stands, as token ids; of a medium that stands in no turn of the
    user's, in the first of them. Nothing but beginning and end where nothing is said. Goes to loader workers.
    """

    branch: BranchTokenizer

    def __call__(self, sample: Sample) -> tuple[tuple[int, ...], ...]:
        """One for each of the sample's media."""
        first = next((message for message in sample.messages if message.role == "user"), None)
        turns = ((each if each.role == "user" else first, len(each.media)) for each in sample.messages)
        return tuple(ids for turn, media in turns if media for ids in (self.branch(_said(turn)),) * media)


def _said(message: Message | None) -> str:
    return " ".join(part.strip() for part in (message.content if message else ()) if isinstance(part, str)).strip()


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
