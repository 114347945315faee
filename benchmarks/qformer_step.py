"""The whole step of contrast, matching and grounded generation over a Q-Former, with passes shared and without.

All read the same weights, features, texts and negatives, in float32 without dropout, and must have the same losses and
gradients before anything is timed:

- ``separate passes``: each loss makes its own, and each pass projects keys and values of its views: contrast of S
  views, matching of 3·S, generation of S, beside whose text it reads the queries once more. Negatives are given, though
  a loss that stands alone would have to make similarities to draw them.
- ``queries shared``: as in LAVIS, where generation goes on from the queries that contrast has read; matching projects
  3·S views anew.
- ``mmbridge``: its objectives, which project each view once.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from paired import paired
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from mmbridge.connectors.base import Words
from mmbridge.connectors.config import ConnectorConfig, LinearConfig, QFormerConfig
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.qformer import QFormer, QFormerOutput
from mmbridge.connectors.text_heads import similarities
from mmbridge.data.batch import Batch
from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.evaluation.flops import executed_flops
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.objectives import itm
from mmbridge.objectives.itc import ImageTextContrast
from mmbridge.objectives.itg import ImageGroundedGeneration
from mmbridge.objectives.run import BatchRun

TOLERANCE = 1e-5
"""How far losses and gradients may be apart, relative to their length."""
SMOOTHING = 0.1
BEGIN = 1
"""The token in front of a text that is generated."""
LENGTHS = (13, 9)
"""Tokens of each text, as captions have them: of as few pairs as have negatives."""


class Step:
    """Views of ``grid``² tokens and a CLS token, ``features`` wide, with a text each; everything is drawn."""

    def __init__(self, config: QFormerConfig, features: int, grid: int) -> None:
        torch.manual_seed(0)
        whole = ConnectorConfig(encoders=("image",), resampler=config, projector=LinearConfig())
        facts = EncoderFacts(features, Grid(1, grid, grid), prefix=1)
        self.connector = Connector(whole, [facts], Words(8), "connectors.image")
        resampler = self.connector.resampler
        assert isinstance(resampler, QFormer)
        assert resampler.heads is not None
        self.own, self.heads = resampler, resampler.heads
        with torch.no_grad():
            for each in self.own.parameters():
                each.add_(torch.randn_like(each), alpha=0.02)
        views, tokens = len(LENGTHS), grid**2 + 1
        self.values, self.real = torch.randn(views, tokens, features), torch.ones(views, tokens, dtype=torch.bool)
        grids = (Grid(1, grid, grid),) * views
        self.features = Features(self.values, self.real, grids, (None,) * views, prefix=1)
        self.texts = [torch.randint(2, len(self.own.table), (length,)) for length in LENGTHS]
        self.ids = pad_sequence(self.texts, batch_first=True)
        self.mask = torch.arange(self.ids.shape[1]) < torch.tensor(LENGTHS)[:, None]
        self.rows = torch.arange(views)
        self.others = self.rows.roll(1)
        self.own.eval()

    def shared(self) -> Tensor:
        """(3,): the three losses, by the objectives."""
        places = (Placeholder(0, "image"),)
        prompts = tuple(Prompt(str(row), (0,), (True,), places, "") for row in self.rows)
        texts = {"image": [tuple(text.tolist()) for text in self.texts]}
        batch = Batch(prompts, {}, (), media=tuple((row,) for row in self.rows.tolist()), texts=texts)
        recipe = SimpleNamespace(connectors={"image": SimpleNamespace(medium="image", encoders=("image",))})
        bridge: Any = SimpleNamespace(
            connectors={"image": self.connector},
            branches={"image": SimpleNamespace(generate=BEGIN)},
            recipe=recipe,
            device=self.values.device,
        )
        run = BatchRun(bridge, batch)
        run.__dict__["features"] = {"image": self.features}
        three = (
            ImageTextContrast("image", "image", SMOOTHING),
            itm.ImageTextMatching("image", "image"),
            ImageGroundedGeneration("image", "image", SMOOTHING),
        )
        with patch.object(itm, "drawn", lambda *_: self.others):
            return torch.stack([each(run) / each.terms(batch) for each in three])

    def separate(self) -> Tensor:
        """The same, each loss for itself."""
        return torch.stack([self._contrast(self._queries()), self._matching(), self._generation(None)])

    def queries_shared(self) -> Tensor:
        """The same, generation going on from what contrast has read."""
        queries = self._queries()
        return torch.stack([self._contrast(queries), self._matching(), self._generation(queries)])

    def trained(self, losses: Callable[[], Tensor]) -> Tensor:
        self.own.zero_grad()
        found = losses()
        torch.autograd.backward(found.sum())
        return found.detach()

    def gradients(self) -> Tensor:
        return torch.cat([each.grad.flatten() for each in self.own.parameters() if each.grad is not None])

    def _queries(self) -> QFormerOutput:
        return self.own.read("queries", self.own.image(self.values, self.real))

    def _contrast(self, read: QFormerOutput) -> Tensor:
        told = self.own.read("text", ids=self.ids, text_mask=self.mask).text
        assert read.queries is not None
        assert told is not None
        near = similarities(self.heads.images(read.queries), self.heads.texts(told[:, 0])) / self.heads.temperature
        both = (near, near.T)
        return sum(
            (functional.cross_entropy(each, self.rows, label_smoothing=SMOOTHING) / 2 for each in both),
            start=near.new_zeros(()),
        )

    def _matching(self) -> Tensor:
        views = torch.cat([self.rows, self.others, self.rows])
        texts = torch.cat([self.rows, self.rows, self.others])
        image = self.own.image(self.values[views], self.real[views])
        queries = self.own.read("both", image, self.ids[texts], self.mask[texts]).queries
        assert queries is not None
        labels = (torch.arange(len(views)) < len(self.rows)).long()
        return functional.cross_entropy(self.heads.matches(queries), labels)

    def _generation(self, read: QFormerOutput | None) -> Tensor:
        ids = self.ids.clone()
        ids[:, 0] = BEGIN
        if read is None:
            states = self.own.read("causal", self.own.image(self.values, self.real), ids, self.mask).text
        else:
            states = self.own.read("causal", ids=ids, text_mask=self.mask, kept=read.kept).text
        assert states is not None
        predicted = self.mask[:, 1:]
        logits = self.heads.words(states[:, :-1][predicted], self.own.table)
        return functional.cross_entropy(logits, ids[:, 1:][predicted], label_smoothing=SMOOTHING)


def stepped(step: Step, rounds: int) -> dict[str, Any]:
    """All figures of a step.

    Raises:
        AssertionError: two ways do not compute the same, so that times would compare different work.
    """
    ways = {"separate passes": step.separate, "queries shared": step.queries_shared, "mmbridge": step.shared}
    variants = {name: partial(step.trained, way) for name, way in ways.items()}
    found = {name: (variant(), step.gradients()) for name, variant in variants.items()}
    (losses, gradients), apart = found["separate passes"], dict[str, dict[str, float]]()
    for name, (other, slopes) in found.items():
        apart[name] = {
            "losses": float((other - losses).norm() / losses.norm()),
            "gradients": float((slopes - gradients).norm() / gradients.norm()),
        }
        assert max(apart[name].values()) <= TOLERANCE, f"expected equal losses and gradients, found {apart} apart"
    return {
        "losses": dict(zip(("itc", "itm", "itg"), losses.tolist(), strict=True)),
        "apart": apart,
        "views": len(step.rows),
        "text tokens": [len(text) for text in step.texts],
        "executed FLOPs": {name: executed_flops(variant) for name, variant in variants.items()},
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": paired(variants, rounds),
    }
