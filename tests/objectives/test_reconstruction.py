"""Reconstruction against transformers' own masked autoencoder; what is hidden; who learns; what cannot be done."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import ViTMAEForPreTraining

from mmbridge.bridge import Bridge
from mmbridge.connectors.xformer import Details, XFormer
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.encoders.base import Features, Views
from mmbridge.encoders.config import TransformersConfig
from mmbridge.encoders.masked import MaskedDecoder, Masking, seen_patches
from mmbridge.encoders.stored import apart
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import FeatureError, RecipeError
from mmbridge.objectives.pairs import Pairs
from mmbridge.objectives.reconstruction import Reconstruction
from mmbridge.objectives.run import BatchRun
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.recipe import Recipe
from mmbridge.trainable import unfreeze
from tests.connectors.xformers import ENCODERS, autoencoder
from tests.objectives.test_pairs import QFORMER, SAID, THREE, negatives
from tests.tiny_bridge import tiny_recipe, tiny_stage

PATCHES, VISIBLE, SIDE, PATCH = 16, 4, 32, 8
XFORMER: dict[str, Any] = {
    "kind": "xformer",
    "heads": 4,
    "qformer": {name: value for name, value in QFORMER.items() if name != "kind"},
}


def recipe(
    parts: Path, objectives: Sequence[str] = ("reconstruction",), mae: dict[str, Any] | None = None, **changes: Any
) -> Recipe:
    """A bridge with an X-Former between a CLIP and a masked autoencoder."""
    encoders = {
        "image": {"kind": "transformers", "path": str(parts / "clip")},
        "details": autoencoder(parts, **mae or {}),
    }
    resampler = XFORMER | changes.pop("resampler", {})
    connector = {"encoders": ENCODERS, "resampler": resampler, "projector": {"kind": "linear"}}
    stage = tiny_stage(objectives=[{"kind": kind} for kind in objectives], **changes)
    return tiny_recipe(parts, stage, encoders=encoders, connectors={"image": connector})


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    made = Bridge(recipe(parts))
    unfreeze(made, made.recipe.stages[0], "stages.align", parts=["connectors."])
    return made.train()


def picture(seed: int) -> Medium:
    noise = torch.randint(256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Medium("image", Image.fromarray(noise.numpy()), str(seed))


def samples(media: Sequence[int] = (0, 1, 2, 0)) -> list[Sample]:
    pictures = {number: picture(number) for number in media}
    found = [
        Sample(str(n), conversation(("user", (pictures[number], "What is it?")), ("assistant", (said,))))
        for n, (number, said) in enumerate(zip(media, SAID, strict=False))
    ]
    return [*found, Sample("alone", conversation(("user", ("Say yes.",)), ("assistant", ("Yes.",))))]


def objective(bridge: Bridge, share: float = 0.75) -> Reconstruction:
    made = Reconstruction("image", "image", "details", share, "stages.align.objectives.0")
    made.load(bridge)
    return made


def encoder(bridge: Bridge) -> VisionEncoder:
    found = bridge.encoders["details"]
    assert isinstance(found, VisionEncoder)
    return found


def inputs(bridge: Bridge, batch: Batch) -> Tensor:
    views = [each for each in batch.views["details"] if isinstance(each, Views)]
    return encoder(bridge).pixels(torch.cat([each.inputs for each in views]))


def losses(bridge: Bridge, batch: Batch, kinds: Sequence[str] = ("reconstruction",), seed: int = 0) -> Tensor:
    chosen = [each for each in bridge.recipe.stages[0].objectives if each.kind in kinds]
    module = WeightedObjectives(bridge, chosen)
    torch.manual_seed(seed)
    found: Tensor = module(batch, module.terms([batch]))
    return found


@pytest.mark.proof("reconstruction", against="transformers' ViTMAEForPreTraining: its loss, under the same mask")
@pytest.mark.parametrize("normed", [False, True])
def test_the_loss_is_transformers(normed: bool, tmp_path: Path) -> None:
    """Where nothing stands between the two halves: M' = M."""
    built = TransformersConfig.model_validate(with_config(tmp_path, norm_pix_loss=normed)).build()
    decoder = MaskedDecoder(built, "encoders.details")
    theirs: Any = ViTMAEForPreTraining.from_pretrained(tmp_path / "mae")
    theirs.config.mask_ratio = 0.75
    pixels, noise = torch.randn(3, 3, SIDE, SIDE), torch.rand(3, PATCHES)
    masking = Masking(noise.argsort(dim=1), decoder.visible(0.75))
    seen = seen_patches(built, pixels, masking)
    with torch.no_grad():
        expected: Any = theirs.eval()(pixel_values=pixels, noise=noise)
        errors = decoder.errors(seen, masking, pixels)
    assert masking.visible == VISIBLE
    assert torch.equal(masking.hidden.float(), expected.mask)
    assert_close(decoder(seen, masking), expected.logits, rtol=1e-5, atol=1e-5)
    assert_close((errors * masking.hidden).sum() / masking.hidden.sum(), expected.loss, rtol=1e-5, atol=1e-6)
    assert decoder.normed == normed


def with_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """An autoencoder whose checkpoint's config says something else."""
    section = autoencoder(folder)
    file = folder / "mae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return section


@pytest.mark.proof("reconstruction", against="transformers' ViTMAEForPreTraining by hand around the X-Former's M'")
def test_through_the_connector(bridge: Bridge, parts: Path) -> None:
    """Its modules one by one, for each sample alone; a medium that two show counts twice."""
    batch = bridge.collate()(samples())
    made = bridge.connectors["image"].get_submodule("resampler")
    assert isinstance(made, XFormer)
    whole: Any = ViTMAEForPreTraining.from_pretrained(parts / "mae", mask_ratio=0.75)
    whole.eval()
    torch.manual_seed(0)
    noise, pixels = torch.rand(3, PATCHES), inputs(bridge, batch)
    made.zero_grad()
    total = torch.zeros(())
    for medium in (0, 1, 2, 0):
        with torch.no_grad():
            seen = whole.vit(pixels[medium : medium + 1], noise=noise[medium : medium + 1])
        first = bridge.encode(batch)["image"].values[medium : medium + 1]
        queries = made.qformer.read("queries", made.qformer.image(first, torch.ones(first.shape[:2]).bool())).queries
        assert queries is not None
        enriched = made.dual.enriched(seen.last_hidden_state, queries)
        predicted = whole.decoder(enriched, seen.ids_restore).logits
        squared = (predicted - whole.patchify(pixels[medium : medium + 1])).square().mean(-1)
        total = total + (squared * seen.mask).sum()
    torch.autograd.backward(total / (4 * (PATCHES - VISIBLE)))
    expected = {name: each.grad.clone() for name, each in made.named_parameters() if each.grad is not None}
    made.zero_grad()
    found = losses(bridge, batch)
    assert_close(found[0], total / (4 * (PATCHES - VISIBLE)), rtol=1e-5, atol=1e-6)
    torch.autograd.backward(found.sum())
    own = {name: each.grad for name, each in made.named_parameters() if each.grad is not None}
    assert own.keys() == expected.keys() > {"dual.enriching.query.weight", "qformer.embeddings.queries"}
    assert not any("dual.reading" in name for name in own)  # nobody reads Z'
    for name, gradient in expected.items():
        assert (own[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


def test_terms_are_hidden_patches(bridge: Bridge) -> None:
    batch = bridge.collate()(samples())
    assert objective(bridge).terms(batch) == 4 * 12
    assert objective(bridge, 0.5).terms(batch) == 4 * 8
    assert objective(bridge).terms(bridge.nothing()) == 0


def test_hidden_patches_are_the_target_alone(bridge: Bridge) -> None:
    """Other pixels where nothing is seen change what is aimed at, and nothing that is made of the image."""
    built, decoder = encoder(bridge), objective(bridge).decoder
    pixels, masking = torch.randn(2, 3, SIDE, SIDE), Masking.drawn(2, PATCHES, VISIBLE, torch.device("cpu"))
    grid = masking.hidden.view(2, 1, 4, 4).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    other = torch.where(grid, torch.randn_like(pixels), pixels)
    seen, again = seen_patches(built, pixels, masking), seen_patches(built, other, masking)
    assert torch.equal(seen, again)
    before, after = decoder.errors(seen, masking, pixels), decoder.errors(again, masking, other)
    assert torch.equal(before != after, masking.hidden)
    shown = torch.where(grid, pixels, torch.randn_like(pixels))
    assert not torch.allclose(seen_patches(built, shown, masking)[:, 1:], seen[:, 1:], atol=1e-3)


def test_each_image_has_a_mask_of_its_own_by_torchs_random_state(bridge: Bridge) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = Masking.drawn(50, PATCHES, VISIBLE, torch.device("cpu"))
    assert first.hidden.sum(1).tolist() == [PATCHES - VISIBLE] * 50
    assert len({tuple(row) for row in first.hidden.tolist()}) > 45
    torch.set_rng_state(state)
    assert torch.equal(Masking.drawn(50, PATCHES, VISIBLE, torch.device("cpu")).order, first.order)
    batch = bridge.collate()(samples())
    one, same, other = (losses(bridge, batch, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_only_the_connector_learns(parts: Path) -> None:
    """All four objectives of the first stage; nothing frozen has a gradient or moves, the decoder with it."""
    made = Bridge(recipe(parts, (*THREE, "reconstruction")))
    unfreeze(made, made.recipe.stages[0], "stages.align", parts=["connectors."])
    module = WeightedObjectives(made.train(), made.recipe.stages[0].objectives)
    (reconstruction,) = module.reconstructions.values()
    batch = made.collate()(samples())
    torch.autograd.backward(module(batch, module.terms([batch])).sum())
    having = {name for name, each in made.named_parameters() if each.grad is not None}
    assert {name for name, _ in made.named_parameters() if ".resampler." in name} == having
    assert all(each.grad is None and not each.requires_grad for each in reconstruction.decoder.parameters())
    assert not reconstruction.decoder.decoder.training


def test_contrast_and_matching_read_what_goes_on(parts: Path) -> None:
    """Details of an image change what texts are compared with and judged by, not what text itself is read from."""
    made = Bridge(recipe(parts, THREE)).eval()
    batch = made.collate()(samples((0, 1, 2)))
    with torch.no_grad():
        before = losses(made, batch, THREE)
        batch.views["details"] = [Views(each.inputs.flip(0, 2)) for each in batch.views["details"]]  # type: ignore[union-attr]
        after = losses(made, batch, THREE)
    assert (before != after).tolist() == [True, True, False]


def test_contrast_and_matching_of_each_pair_alone(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Z' of whole media in the shared space; and row by row Z' of queries that read a text beside them."""
    made = Bridge(recipe(parts, THREE)).eval()
    resampler = made.connectors["image"].get_submodule("resampler")
    assert isinstance(resampler, XFormer)
    batch, drew = made.collate()(samples()), negatives(monkeypatch)
    with torch.no_grad():
        matching = losses(made, batch, ("itm",))[0] * 12
        pairs, seen = Pairs(BatchRun(made, batch), "image"), made.encode(batch)
        media, heads, total = (0, 1, 2, 0), pairs.heads, torch.zeros(())

        def alone(medium: int) -> tuple[Features, Features]:
            first, second = (seen[name] for name in ENCODERS)
            row = slice(medium, medium + 1)
            mine = [Features(x.values[row], x.mask[row], x.grids[row], (None,), x.prefix) for x in (first, second)]
            return mine[0], mine[1]

        for pair, (medium, text) in enumerate(zip(media, range(4), strict=True)):
            assert_close(pairs.images[pair], heads.images(resampler(*alone(medium)).values)[0], rtol=1e-4, atol=1e-5)
            rows = ((medium, text, 1), (media[drew[0][pair]], text, 0), (medium, drew[1][pair], 0))
            for shown, said, label in rows:
                first, second = alone(shown)
                image, ids = (
                    resampler.qformer.image(first.values, first.mask),
                    torch.tensor([batch.texts["image"][said]]),
                )
                queries = resampler.qformer.read("both", image, ids).queries
                assert queries is not None
                states = resampler.dual(queries, Details(second.values))
                total = total - heads.matches(states).log_softmax(1)[0, label]
    assert_close(matching, total, rtol=1e-4, atol=1e-5)


def test_nothing_to_see_is_worth_nothing(bridge: Bridge) -> None:
    alone = bridge.collate()([each for each in samples() if not each.media])
    for batch in (alone, bridge.nothing()):
        bridge.zero_grad()
        found = losses(bridge, batch)
        assert found.tolist() == [0]
        torch.autograd.backward(found.sum())
        gradients = [each.grad for each in bridge.connectors.parameters() if each.grad is not None]
        assert gradients
        assert not any(bool(each.any()) for each in gradients)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_and_loading(precision: str, parts: Path, tmp_path: Path) -> None:
    """A stage of all four, and the bridge that comes of it: the decoder is none of its tensors."""
    asked = recipe(parts, (*THREE, "reconstruction", "next_token"), steps=2, precision=precision)
    trained = asked.train(out=tmp_path / "run")
    assert not any("decoder" in name for name in trained.own_tensors())
    loaded = Bridge.from_pretrained(tmp_path / "run", device="cpu")
    for name, tensor in loaded.own_tensors().items():
        assert torch.equal(tensor, trained.own_tensors()[name])
    assert loaded.caption(Image.new("RGB", (40, 32), "red"), max_new_tokens=3).perceptual_tokens == 5


@pytest.mark.parametrize(
    ("mae", "line"),
    [
        (
            {"norm": False},
            "encoders.details: expected what its decoder reads: all tokens of the last layer, normed; set",
        ),
        ({"tokens": "patches"}, "encoders.details: expected what its decoder reads"),
        ({"layer": -2}, "encoders.details: expected what its decoder reads"),
    ],
)
def test_an_encoder_tapped_elsewhere(mae: dict[str, Any], line: str, parts: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        WeightedObjectives((made := Bridge(recipe(parts, mae=mae))), made.recipe.stages[0].objectives)
    assert str(caught.value).startswith(line)


def test_an_encoder_without_a_decoder(parts: Path, tmp_path: Path) -> None:
    """No masked autoencoder; and one whose checkpoint holds the encoder alone."""
    for path, line in (
        (
            parts / "clip",
            "expected a masked autoencoder of transformers (ViT-MAE), found CLIPVisionModel; name one such",
        ),
        (
            encoder_alone(tmp_path),
            "expected the checkpoint of a masked autoencoder with its decoder, found the encoder",
        ),
    ):
        made = Bridge(recipe(parts, mae={"path": str(path)}))
        with pytest.raises(RecipeError) as caught:
            WeightedObjectives(made, made.recipe.stages[0].objectives)
        assert str(caught.value).startswith(f"encoders.details.path: {line}")


def encoder_alone(folder: Path) -> Path:
    autoencoder(folder)
    file = folder / "mae" / "model.safetensors"
    kept = {name: each for name, each in load_file(file).items() if not name.startswith("decoder.")}
    save_file(kept, file, metadata={"format": "pt"})
    return folder / "mae"


def test_features_from_disk(bridge: Bridge) -> None:
    batch = bridge.collate()(samples())
    batch.views["details"] = [*apart(bridge.encode(batch)["details"])]
    with pytest.raises(FeatureError) as caught:
        losses(bridge, batch)
    line = "features: expected images to hide parts of, found features that were encoded before; leave features out"
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("share", [1e-17, 0.99])
def test_nothing_hidden_or_nothing_seen(share: float, bridge: Bridge) -> None:
    with pytest.raises(RecipeError, match=r"^stages\.align\.objectives\.0\.mask_ratio: expected some of 16 patches"):
        objective(bridge, share)


def test_a_connector_without_an_xformer(parts: Path) -> None:
    stage = tiny_stage(objectives=[{"kind": "reconstruction"}])
    made = Bridge(tiny_recipe(parts, stage))
    with pytest.raises(
        RecipeError,
        match=r"^stages\.align\.objectives\.0\.connector: expected one connector with an xformer, found 0; give",
    ):
        WeightedObjectives(made, made.recipe.stages[0].objectives, "stages.align.objectives")
