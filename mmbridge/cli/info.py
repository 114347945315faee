"""``mmbridge info BRIDGE|RECIPE``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from mmbridge.cli.options import Json
from mmbridge.cli.output import show_json, show_table

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge
    from mmbridge.config import Config
    from mmbridge.recipe import Recipe
    from mmbridge.stage import StageConfig


def info(
    subject: Annotated[str, typer.Argument(metavar="BRIDGE|RECIPE", help="A bridge, or a recipe's name or file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, for a recipe.")] = None,
    json: Json = False,
) -> None:
    """Say what a bridge or a recipe is made of."""
    from mmbridge.recipe_file import load, shipped

    path = Path(subject)
    if subject in shipped() or path.suffix in (".yaml", ".yml") or not (path.is_dir() or "/" in subject):
        recipe = load(subject, overrides or [])
        if json:
            show_json(recipe.model_dump(mode="json"))
        else:
            _show_recipe(recipe)
        return

    from mmbridge.bridge import Bridge

    bridge = Bridge.from_pretrained(subject, device="cpu")
    if json:
        parts = [part._asdict() for part in _parts(bridge)]
        show_json({"name": bridge.recipe.name, "stage": bridge.stage, "parts": parts, "metrics": bridge.metrics})
    else:
        _show_bridge(bridge)


class Part(NamedTuple):
    """A row of a bridge's table; ``width`` and ``tokens`` are those of its output, of one untiled medium."""

    part: str
    kind: str
    path: str
    width: int
    tokens: int | None
    frozen: int
    trained: int
    sha256: str | None


def _parts(bridge: "Bridge") -> list[Part]:
    """Encoders, connectors and LLM, as they were built."""
    recipe, sources = bridge.recipe, bridge.sources
    rows = []
    for name, config in recipe.encoders.items():
        encoder: Any = bridge.encoders[name]
        held, source = _held(bridge, f"encoders.{name}."), sources.get(f"encoders.{name}", {}).get("sha256")
        facts = encoder.facts
        rows.append(Part(f"encoder {name}", config.kind, config.path or "", facts.width, facts.tokens, *held, source))
    for name, section in recipe.connectors.items():
        connector: Any = bridge.connectors[name]
        kind, held = f"{section.resampler.kind} + {section.projector.kind}", _held(bridge, f"connectors.{name}.")
        tokens = connector.length(None)
        rows.append(Part(f"connector {name}", kind, "", bridge.llm.width, tokens, *held, None))
    llm, held = type(bridge.llm.model).__name__, _held(bridge, "llm.")
    return [*rows, Part("llm", llm, recipe.llm.path, bridge.llm.width, None, *held, sources["llm"]["sha256"])]


def _held(bridge: "Bridge", prefix: str) -> tuple[int, int]:
    """How many numbers of the part are frozen, and how many training has made."""
    from mmbridge.sizes import numbers

    sizes = {name: numbers(each) for name, each in bridge.named_parameters() if name.startswith(prefix)}
    trained = sum(size for name, size in sizes.items() if prefix.startswith("connectors.") or name in bridge.unfrozen)
    return sum(sizes.values()) - trained, trained


def _show_bridge(bridge: "Bridge") -> None:
    stage = f", after stage {bridge.stage}" if bridge.stage else ""
    print(f"{bridge.recipe.name}: {bridge.recipe.about}{stage}\n")
    rows = [
        (*part[:3], part.width, part.tokens or "", f"{part.frozen:,}", f"{part.trained:,}", (part.sha256 or "")[:12])
        for part in _parts(bridge)
    ]
    show_table("parts", ("part", "kind", "from", "width", "tokens", "frozen", "trained", "sha256"), rows)
    if bridge.metrics:
        print()
        scores = [
            (name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in bridge.metrics.items()
        ]
        show_table("metrics", ("metric", "value"), scores)


def _show_recipe(recipe: "Recipe") -> None:
    paper = f" ({recipe.paper})" if recipe.paper else ""
    print(f"{recipe.name}: {recipe.about}{paper}\n")
    rows = [
        *((f"encoder {name}", part.kind, part.path or "", _settings(part)) for name, part in recipe.encoders.items()),
        *(
            (
                f"connector {name}",
                f"{part.resampler.kind} + {part.projector.kind}",
                ", ".join(part.encoders),
                _both(part),
            )
            for name, part in recipe.connectors.items()
        ),
        ("llm", "causal LM", recipe.llm.path, _settings(recipe.llm)),
    ]
    show_table("parts", ("part", "kind", "from", "settings"), rows)
    print()
    stages = [
        (stage.name, " ".join(stage.train), _data(stage), f"{stage.optim.lr:g}", _samples(stage), _length(stage))
        for stage in recipe.stages
    ]
    show_table("stages", ("stage", "trains", "data", "lr", "samples a step", "length"), stages)
    if recipe.variants:
        print(f"\nvariants: {', '.join(recipe.variants)}")


def _settings(part: "Config", without: tuple[str, ...] = ("kind", "path")) -> str:
    """What a section says beyond its defaults."""
    said: dict[str, Any] = part.model_dump(mode="json", exclude_defaults=True)
    return ", ".join(f"{key} {_short(value)}" for key, value in said.items() if key not in without)


def _both(part: Any) -> str:
    own = _settings(part, ("encoders", "resampler", "projector", "medium"))
    return ", ".join(filter(None, [_settings(part.resampler), _settings(part.projector), own]))


def _short(value: Any) -> str:
    text = ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _data(stage: "StageConfig") -> str:
    return " + ".join(f"{item.kind} {item.task}" for item in stage.data.mix)


def _samples(stage: "StageConfig") -> str:
    return f"{stage.batch} × {stage.accumulate}" if stage.accumulate > 1 else str(stage.batch)


def _length(stage: "StageConfig") -> str:
    return f"{stage.steps} steps" if stage.steps is not None else f"{stage.epochs:g} epochs"
