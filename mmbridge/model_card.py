"""The README.md of a bridge folder, with the metadata that the hub reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge


def model_card(bridge: "Bridge") -> str:
    """What the bridge is made of, how it was trained, what was measured, and how to use it."""
    recipe, sources = bridge.recipe, bridge.sources
    paths = {str(each["path"]) for each in sources.values()}
    hub = sorted(path for path in paths if not path.startswith("world:") and not Path(path).is_absolute())
    data = ModelCardData(
        library_name="mmbridge",
        pipeline_tag="image-text-to-text",
        tags=["mmbridge", recipe.name],
        base_model=hub or None,
    )
    own = sum(each.numel() for each in bridge.own_tensors().values())
    parts = [
        f"| {name} | `{source['path']}` | {source['revision'] or '–'} | `{str(source['sha256'])[:16]}` |"
        for name, source in sources.items()
    ]
    paper = [f"After: {recipe.paper}."] if recipe.paper else []
    lines = [
        f"# {recipe.name}",
        f"A bridge made with mmbridge: {recipe.about}.",
        *paper,
        f"This folder holds {own:,} trained numbers. The parts below stay frozen; they are not in here, and loading "
        "checks that they are the very ones it was trained with.",
        "| part | source | revision | SHA-256 of its contents |\n|---|---|---|---|\n" + "\n".join(parts),
        "## Training",
        *_trained([_stage(stage.name, stage.name == bridge.stage) for stage in recipe.stages]),
        *_measured(bridge.metrics),
        "## Use",
        "```python\nfrom mmbridge import Bridge\n\n"
        'bridge = Bridge.from_pretrained("path/or/hub-id")\n'
        'print(bridge.caption("picture.png").text)\n'
        'print(bridge.ask("picture.png", "What is in the picture?").text)\n```',
        "## Limits",
        "It says what its LLM can say and sees what its encoders see, with their biases and licences. It was measured "
        "on nothing but what stands above.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(lines) + "\n"


def _trained(stages: list[str]) -> list[str]:
    if not stages:
        return ["Its recipe names no stages: it was trained elsewhere."]
    return [
        f"Stages of the recipe, in order: {', '.join(stages)}. `recipe.yaml` repeats it: `mmbridge train recipe.yaml`."
    ]


def _stage(name: str, last: bool) -> str:
    return f"**{name}** (the last one this bridge went through)" if last else name


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | {_shown(value)} |" for name, value in metrics.items()]
    return ["| at the end of the stage | |\n|---|---|\n" + "\n".join(rows)] if rows else []


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
