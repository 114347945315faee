"""Which prompt a sample gets: a whole conversation in the template of its source, or one up to the next answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmbridge.data.sample import Sample
from mmbridge.llm.prompt import Prompt, Prompter
from mmbridge.llm.templates import TemplateName


@dataclass(frozen=True, slots=True)
class LearntPrompt:
    """A sample's conversation; ``prompters`` by what their templates are called, the bridge's own under ``None``.

    Goes to loader workers.
    """

    prompters: Mapping[TemplateName | None, Prompter]

    def __call__(self, sample: Sample) -> Prompt:
        return self.prompters[sample.template].training(sample)


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """A sample's prompt up to where the assistant speaks next, in the bridge's template. Goes to loader workers."""

    prompter: Prompter

    def __call__(self, sample: Sample) -> Prompt:
        return self.prompter.generation(sample.messages, sample.id)
