"""A sample as alignment reads it: what is shown, asked and answered, in one conversation."""

from dataclasses import replace

from mmbridge.data.sample import Message, Sample
from mmbridge.errors import DataError
from mmbridge.evaluation.captions import references


def told(sample: Sample) -> Sample:
    """The sample with its answer said: its own, else the first reference or answer of its truth.

    Raises:
        DataError: it shows no medium, or nothing is known to say of it.
    """
    if not sample.media:
        raise DataError(sample.id, "expected a medium, found none")
    last = sample.messages[-1]
    if last.role == "assistant":
        if not any(isinstance(part, str) and part.strip() for part in last.content):
            raise DataError(sample.id, "expected an answer, found an empty one")
        return replace(sample, others=())
    known = [*references(sample.truth), *sample.truth.get("answers", ())]
    if not known:
        raise DataError(sample.id, "expected an answer, a caption or references in its truth, found none")
    return replace(sample, messages=(*sample.messages, Message("assistant", (known[0],))), others=())
