"""X-Formers and masked autoencoders of a few numbers, every one of which is drawn."""

from pathlib import Path
from typing import Any

from mmbridge.connectors.config import XFormerConfig
from mmbridge.connectors.xformer import XFormer
from mmbridge.encoders.base import EncoderFacts, Grid
from tests.connectors.qformers import FEATURES, KEY, SMALL, shake
from tests.encoders.models import MAKERS

DETAILS = 20
"""The width of what the second encoder sees."""
ENCODERS = ["image", "details"]
"""Their names in a recipe, in the connector's order."""


def xformer(heads: int = 2, **changes: Any) -> XFormer:
    """For features of 4×4 tokens by both encoders; without dropout unless ``changes`` of its Q-Former say so."""
    config = XFormerConfig.model_validate({"qformer": SMALL | {"dropout": 0.0} | changes, "heads": heads})
    sources = EncoderFacts(FEATURES, Grid(1, 4, 4)), EncoderFacts(DETAILS, Grid(1, 4, 4), 1)
    made = config.build(*sources, key=KEY)
    assert isinstance(made, XFormer)
    shake(made)
    return made


def autoencoder(folder: Path, **changes: Any) -> dict[str, Any]:
    """The section of an encoder whose checkpoint is made below ``folder`` once."""
    if not (folder / "mae").exists():
        MAKERS["mae"](folder / "mae")
    whole = {"kind": "transformers", "path": str(folder / "mae"), "layer": -1, "tokens": "all", "norm": True}
    return whole | changes
