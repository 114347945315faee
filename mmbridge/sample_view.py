"""The first sample of a stage as the LLM reads it, with what it is taught to say marked, printed once."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch


def with_first_shown(steps: Iterable[list[Batch]], bridge: Bridge, console: Console) -> Iterator[list[Batch]]:
    """The batches of steps as they come; the first sample of all is printed on its way."""
    shown = False
    for batches in steps:
        if not shown and (filled := next(filter(len, batches), None)):
            console.print(decoded(filled, bridge), soft_wrap=True)
            shown = True
        yield batches


def decoded(batch: Batch, bridge: Bridge) -> Text:
    """The first sample's tokens as text: supervised ones between ⟦ and ⟧, media as their number of tokens."""
    prompt, tokenizer = batch.prompts[0], bridge.prompter.tokenizer
    kinds = {placeholder.position: placeholder.medium for placeholder in prompt.placeholders}
    counts = iter(bridge.perceptual_tokens(batch)[0])
    text = Text(f"sample {prompt.sample}: ", style="bold")
    for (kind, supervised), run in groupby(
        range(len(prompt.ids)), key=lambda at: (kinds.get(at), prompt.supervised[at])
    ):
        positions = list(run)
        if kind is not None:
            media = "".join(f"<{kind} × {next(counts)}>" for _ in positions)
            text.append(media, style="not bold cyan")
        else:
            words = str(tokenizer.decode([prompt.ids[at] for at in positions]))
            text.append(f"⟦{words}⟧" if supervised else words, style="bold green" if supervised else "not bold")
    return text
