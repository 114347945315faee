"""The table of frozen and trainable parts, printed when a stage starts."""

from rich.console import Console
from rich.table import Table
from torch import nn

from mmbridge.bridge import Bridge
from mmbridge.sizes import numbers


def print_table(bridge: Bridge, stage: str, console: Console) -> None:
    """Every part with its source, its parameters and how many of them train."""
    table = Table(box=None, title=f"stage {stage}", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("from", overflow="ellipsis", no_wrap=True, ratio=1)
    for header in ("parameters", "trainable"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("format", no_wrap=True)
    total = trains = 0
    for name, source, module in _parts(bridge):
        counts = [(numbers(each), each.requires_grad) for each in module.parameters()]
        own, own_trains = sum(count for count, _ in counts), sum(count for count, trained in counts if trained)
        total, trains = total + own, trains + own_trains
        formats = {str(each.dtype).removeprefix("torch.") for each in module.parameters()}
        table.add_row(name, source, f"{own:,}", f"{own_trains:,}", _state(own, own_trains), " ".join(sorted(formats)))
    table.add_row("all", "", f"{total:,}", f"{trains:,}", f"{trains / total:.2%} trainable", "")
    console.print(table)


def _parts(bridge: Bridge) -> list[tuple[str, str, nn.Module]]:
    recipe = bridge.recipe
    encoders = [(f"encoders.{name}", each.path or "", bridge.encoders[name]) for name, each in recipe.encoders.items()]
    connectors = [
        (f"connectors.{name}", f"{each.resampler.kind} → {each.projector.kind}", bridge.connectors[name])
        for name, each in recipe.connectors.items()
    ]
    return [*encoders, *connectors, ("llm", recipe.llm.path, bridge.llm)]


def _state(own: int, trains: int) -> str:
    if trains == 0:
        return "frozen"
    return "trainable" if trains == own else "partly trainable"
