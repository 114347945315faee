"""Masked-image reconstruction through an X-Former: what it makes of the patches that are seen predicts the others.

X-Former: Unifying Contrastive and Reconstruction Learning for MLLMs
Sirnam Swetha, Jinyu Yang, Tal Neiman, Mamshad Nayeem Rizve, Son Tran, Benjamin Yao, Trishul Chilimbi, Mubarak Shah,
arXiv 2407.13851

The frozen masked autoencoder sees a part of each image; its features M and the queries Z_q, which have read the whole
image by the other encoder, give M' = CA(M, Z_q), from which the autoencoder's own frozen decoder predicts the pixels of
what was hidden. Gradients reach the connector alone.

Decided here: the share that is hidden is MAE's, as X-Former's own is in none of the sources at hand; and the
autoencoder runs again for it, so that the other objectives, and the LLM later, read features of the whole image.

Symbols: S samples that show a medium, U media shown, L patches, K of them visible, D width of the autoencoder.
"""

import torch
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Views
from mmbridge.encoders.masked import MaskedDecoder, Masking, seen_patches
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import FeatureError, RecipeError
from mmbridge.objectives.base import Reads
from mmbridge.objectives.queried import places
from mmbridge.objectives.run import BatchRun


class Reconstruction:
    """One term for each hidden patch of each sample's first medium: the mean squared error of its pixels.

    A medium that several samples of a batch show is hidden once, and counts for each of them.

    Args:
        connector: whose X-Former it is.
        medium: the kind it reads.
        encoder: the masked autoencoder's name.
        hidden: share of the patches that are not seen.
        key: where this stands in its recipe, for errors.
    """

    joint = False

    def __init__(self, connector: str, medium: MediumKind, encoder: str, hidden: float, key: str) -> None:
        self.connector, self.encoder = connector, encoder
        self._medium, self._hidden, self._key = medium, hidden, key
        self.reads = (Reads("reconstruction", connector),)
        self._decoder: MaskedDecoder | None = None

    def load(self, bridge: Bridge) -> None:
        """Reads the decoder.

        Raises:
            RecipeError: there is none, or nothing is seen or nothing hidden.
        """
        self._decoder = decoder = MaskedDecoder(self._autoencoder(bridge), f"encoders.{self.encoder}")
        if not 0 < self.visible < decoder.patches:
            problem = (
                f"expected some of {decoder.patches} patches to be seen and some hidden, found {self.visible} seen"
            )
            raise RecipeError(f"{self._key}.mask_ratio", problem)

    @property
    def decoder(self) -> MaskedDecoder:
        assert self._decoder is not None, "the decoder has not been loaded"
        return self._decoder

    @property
    def visible(self) -> int:
        """K."""
        return self.decoder.visible(self._hidden)

    def terms(self, batch: Batch) -> int:
        return len(places(batch, self._medium)) * (self.decoder.patches - self.visible)

    def __call__(self, run: BatchRun) -> Tensor:
        """Hides patches with torch's random state.

        Raises:
            FeatureError: features come from disk, where there are no images to hide parts of.
        """
        queried, decoder = run.queried(self.connector), self.decoder
        shown, counts = torch.unique(queried.medium, return_counts=True)
        masking = Masking.drawn(len(shown), decoder.patches, self.visible, shown.device)
        pixels = self._pixels(run, shown.tolist() if queried.real else [])
        seen = seen_patches(self._autoencoder(run.bridge), pixels, masking)
        xformer, queries = queried.xformer, queried.queries.queries
        assert xformer is not None
        assert queries is not None
        enriched = xformer.dual.enriched(seen.to(queries.dtype), queries[shown])
        errors = decoder.errors(enriched, masking, pixels) * masking.hidden
        found: Tensor = (errors * (counts * queried.real)[:, None]).sum()
        return found

    def _pixels(self, run: BatchRun, media: list[int]) -> Tensor:
        """(U, C, H, W) in float32, normalised; of one black image where there are none."""
        encoder = self._autoencoder(run.bridge)
        if not media:
            return torch.zeros(1, 3, *encoder.prepare.size, device=run.bridge.device)
        views = [run.batch.views[self.encoder][number] for number in media]
        found = [each.inputs for each in views if isinstance(each, Views)]
        if len(found) < len(views):
            problem = "expected images to hide parts of, found features that were encoded before"
            raise FeatureError("features", problem, "leave features out, or train without reconstruction")
        return encoder.pixels(torch.cat(found))

    def _autoencoder(self, bridge: Bridge) -> VisionEncoder:
        encoder = bridge.encoders[self.encoder]
        assert isinstance(encoder, VisionEncoder)
        return encoder
