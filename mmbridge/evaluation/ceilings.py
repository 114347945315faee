"""What the embedded world's frozen parts reach on their own, and so what a bridge between them can reach at best.

``weights/ceilings.json`` is written with the weights: ``{"llm": {"text_vqa": 0.98}, "clip": {"shape": 0.99}}`` holds
the LLM's accuracy on text-only questions and the accuracy of linear probes on each encoder's features.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mmbridge.data import world

if TYPE_CHECKING:
    from mmbridge.recipe import Recipe

CEILINGS = Path(world.__file__).parent / "weights" / "ceilings.json"
_PREFIX = "world:"


def ceilings(recipe: "Recipe", file: Path = CEILINGS) -> dict[str, float]:
    """Figures of the recipe's world parts, named ``part.probe``; empty when it has none or no figures are shipped."""
    paths = [recipe.llm.path, *(encoder.path or "" for encoder in recipe.encoders.values())]
    names = [path.removeprefix(_PREFIX) for path in paths if path.startswith(_PREFIX)]
    if not names or not file.exists():
        return {}
    figures = json.loads(file.read_text(encoding="utf-8"))
    return {f"{name}.{probe}": value for name in names for probe, value in figures.get(name, {}).items()}
