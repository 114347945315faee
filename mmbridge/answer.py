"""What a bridge says, and what it took."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated text.

    ``perceptual_tokens`` its media became, of which the LLM read ``kept_tokens``; ``seconds`` is an even share of the
    time its batch took, from decoding the media to the last token.
    """

    text: str
    perceptual_tokens: int
    kept_tokens: int
    seconds: float
