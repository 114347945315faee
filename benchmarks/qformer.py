"""A Q-Former's forward and backward pass, beside transformers': ``python benchmarks/qformer.py``.

The same weights, features and gradient at the output, of queries alone, in float32; outputs and gradients must be the
same before anything is timed. With dropout, as in training, each draws its own. Then the whole step of contrast,
matching and grounded generation beside the same losses with passes of their own (``qformer_step.py``); ``--row`` runs
one of both. Writes ``results/qformer.json``: seconds and ratios, and the FLOPs each executes as torch counts them.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from paired import lines, paired
from qformer_step import Step, stepped
from record import Record
from torch import Tensor
from transformers import Blip2Config, Blip2ForConditionalGeneration

from mmbridge.connectors.config import QFormerConfig, TextBranchConfig
from mmbridge.connectors.qformer import QFormer
from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.evaluation.flops import executed_flops
from mmbridge.frozen import quietly

TOLERANCE = 1e-5
"""How far outputs may be apart, and gradients relative to their length."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Q-Former and of its input: ``views`` of ``grid``² tokens and a CLS token, ``features`` wide; and
    how many ``words`` its text branch has."""

    qformer: QFormerConfig
    features: int
    grid: int
    views: int
    words: int


SHAPES = {
    "blip-2": Shape(QFormerConfig(normalise_features=False), 1408, 16, 4, 30523),
    "tiny": Shape(
        QFormerConfig(queries=4, width=32, layers=2, heads=4, feed_forward=48, normalise_features=False), 24, 2, 2, 60
    ),
}
"""``blip-2`` reads the 257 tokens of EVA ViT-g at 224 pixels; ``tiny`` is for tests."""


def step(shape: Shape) -> Step:
    """Of the shape's Q-Former with a text branch, without dropout."""
    words = TextBranchConfig(vocabulary=shape.words, shared=min(256, shape.qformer.width))
    config = shape.qformer.model_copy(update={"text": words, "dropout": 0.0})
    return Step(config, shape.features, shape.grid)


def theirs(shape: Shape) -> Any:
    """transformers' class, with a tower and an LLM next to nothing; all is drawn, so that no two tensors agree."""
    own = shape.qformer
    least = {"num_hidden_layers": 1, "num_attention_heads": 1}
    config = Blip2Config(
        vision_config=least | {"hidden_size": shape.features, "intermediate_size": 8, "image_size": 14},
        text_config=least | {"model_type": "opt", "hidden_size": 8, "ffn_dim": 8, "vocab_size": 8},
        qformer_config={
            "hidden_size": own.width,
            "num_hidden_layers": own.layers,
            "num_attention_heads": own.heads,
            "intermediate_size": own.feed_forward,
            "encoder_hidden_size": shape.features,
        },
        num_query_tokens=own.queries,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(torch.randn_like(each), alpha=0.02)
    return model


def ours(shape: Shape, model: Any) -> QFormer:
    """Ours, from the same weights."""
    with TemporaryDirectory() as folder, quietly():
        model.save_pretrained(folder)
        config = shape.qformer.model_copy(update={"init": folder})
        grid = Grid(1, shape.grid, shape.grid)
        made = QFormer(config, EncoderFacts(shape.features, grid, prefix=1), "resampler")
        made.initialise()
    return made


def measured(shape: Shape, rounds: int) -> dict[str, Any]:
    """All figures of a shape, by whether there is dropout.

    Raises:
        AssertionError: both do not compute the same, so that times would compare different work.
    """
    other = theirs(shape)
    own, tokens = ours(shape, other), shape.grid**2 + 1
    values = torch.randn(shape.views, tokens, shape.features)
    above = torch.randn(shape.views, shape.qformer.queries, shape.qformer.width)
    grids = (Grid(1, shape.grid, shape.grid),) * shape.views
    real = torch.ones(shape.views, tokens, dtype=torch.bool)
    features = Features(values, real, grids, (None,) * shape.views, prefix=1)

    def step() -> Tensor:
        own.zero_grad()
        found: Tensor = own(features).values
        torch.autograd.backward(found, above)
        return found.detach()

    def step_of_theirs() -> Tensor:
        other.zero_grad()
        queries = other.query_tokens.expand(shape.views, -1, -1)
        found: Tensor = other.qformer(query_embeds=queries, encoder_hidden_states=values).last_hidden_state
        torch.autograd.backward(found, above)
        return found.detach()

    variants: dict[str, Callable[[], object]] = {"transformers": step_of_theirs, "mmbridge": step}
    own.eval()
    other.eval()
    apart = {"outputs": float((step() - step_of_theirs()).abs().max()), "gradients": _difference(own, other)}
    assert max(apart.values()) <= TOLERANCE, f"expected equal outputs and gradients, found them {apart} apart"
    figures: dict[str, Any] = {
        "apart": apart,
        "executed FLOPs": {name: executed_flops(variant) for name, variant in variants.items()},
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": paired(variants, rounds),
    }
    own.train()
    other.train()
    return figures | {"times with dropout": paired(variants, rounds)}


def _difference(own: QFormer, other: Any) -> float:
    """Between all gradients of both, relative to the length of transformers' own."""
    gap, length = 0.0, 0.0
    twins = {each.detach().numpy().tobytes(): each.grad for each in other.parameters()}
    for each in own.parameters():
        gradient = twins[each.detach().numpy().tobytes()]
        assert each.grad is not None
        assert gradient is not None
        gap += float((each.grad - gradient.view_as(each)).norm() ** 2)
        length += float(gradient.norm() ** 2)
    found: float = (gap / length) ** 0.5
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="blip-2")
    parser.add_argument("--row", choices=("both", "plain", "step"), default="both")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record, shape = Record("qformer"), SHAPES[given.shape]
    if given.row != "step":
        record.keep(given.shape, found := measured(shape, given.rounds))
        print("\n".join([*lines(found["times"]), "with dropout", *lines(found["times with dropout"])]))
    if given.row != "plain":
        record.keep(f"{given.shape}, contrast, matching and generation", found := stepped(step(shape), given.rounds))
        print("\n".join(["contrast, matching and generation", *lines(found["times"])]))


if __name__ == "__main__":
    main()
