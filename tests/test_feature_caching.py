"""Training from features written before: the steps of training from the encoders, which then never run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.data import collate
from mmbridge.data.config import FeaturesConfig
from mmbridge.data.feature_writing import Manner
from mmbridge.encoders.base import Prepared, Stored, Views
from mmbridge.encoders.stored import apart, together
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import FeatureError, MediaError
from mmbridge.evaluation.flops import executed_flops
from mmbridge.feature_caching import Caching, Report
from mmbridge.flops import StepFlops
from mmbridge.recipe import Recipe
from mmbridge.torch_engine import TorchEngine
from mmbridge.train import train
from mmbridge.trainable import unfreeze
from tests.data.pictures import noise, write_lines
from tests.test_train import curve, equal, weights
from tests.tiny import tiny_clip, tiny_siglip
from tests.tiny_bridge import tiny_recipe, tiny_stage

CPU = torch.device("cpu")
EXACT = Manner(dtype=torch.float32)
TINY = 1e-5
"""What rounding may leave after some steps of the tiny models, whose random weights are large."""


def written(recipe: Recipe, folder: Path, manner: Manner = EXACT, **options: Any) -> Report:
    return Caching(recipe, folder, manner=manner, **options).write(CPU)


def reading(recipe: Recipe, folder: Path, missing: str = "raise") -> Recipe:
    return recipe.model_copy(
        update={"features": FeaturesConfig.model_validate({"path": str(folder), "missing": missing})}
    )


def steps(recipe: Recipe) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The loss and the gradient of every step of a recipe's first stage. Steps go down the gradient itself, as an
    optimiser that divides by its size makes much of what rounding leaves."""
    stage = recipe.stages[0]
    bridge = Bridge(recipe, stage.template)
    unfreeze(bridge, stage, "stages.align", parts=["connectors."])
    batches, count = training_batches(bridge, stage, seed=0)
    torch.manual_seed(0)
    engine = TorchEngine(bridge, stage, count, "stages.align")
    for batch in batches:
        losses = engine.losses(batch, engine.terms([batch]))
        engine.backward(losses)
        yield float(losses.detach().sum()), {name: each.grad.clone() for name, each in trained(bridge)}
        with torch.no_grad():
            for _, each in trained(bridge):
                each -= 0.03 * each.grad
        engine.drop()


def trained(bridge: Bridge) -> list[tuple[str, Any]]:
    return [(name, each) for name, each in bridge.named_parameters() if each.requires_grad]


def assert_same_steps(found: Recipe, expected: Recipe, tolerance: float = 1e-6) -> None:
    """Losses, and gradients against the largest of each tensor's."""
    compared = 0
    for (loss, gradients), (live, others) in zip(steps(found), steps(expected), strict=True):
        assert loss == pytest.approx(live, rel=tolerance)
        for name, gradient in gradients.items():
            scale = float(others[name].abs().max()) or 1.0
            assert_close(gradient / scale, others[name] / scale, rtol=0, atol=tolerance, msg=name)
        compared += 1
    assert compared == expected.stages[0].steps


@contextmanager
def nothing_encoded_or_decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(*_: object) -> None:
        raise AssertionError("this should not run")

    with monkeypatch.context() as patch:
        patch.setattr(VisionEncoder, "forward", refused)
        patch.setattr(collate, "open_medium", refused)
        yield


def of_the_world(**changes: Any) -> Recipe:
    stage = tiny_stage(data={"mix": [{"kind": "world", "count": 24, "task": "caption"}]}, batch=4, steps=6) | changes
    parts: dict[str, Any] = {
        "encoders": {"image": {"kind": "open_clip", "path": "world:clip"}},
        "connectors": {"image": {"encoders": ["image"], "projector": {"kind": "mlp", "depth": 2, "hidden": 64}}},
        "llm": {"path": "world:llm"},
    }
    return Recipe.model_validate({"name": "w", "about": "w", "stages": [stage], **parts, "log": {"tensorboard": False}})


def test_a_stage_of_the_embedded_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = of_the_world()
    report = written(recipe, tmp_path / "f")
    assert (report.encoders["image"].media, report.seen["align"].drawn) == (24, 24)
    live, cached = list(steps(recipe)), reading(recipe, tmp_path / "f")
    with nothing_encoded_or_decoded(monkeypatch):
        assert len(list(steps(cached))) == 6
    assert_same_steps(cached, recipe)
    assert len({round(loss, 4) for loss, _ in live}) == 6  # they are all different steps


@pytest.fixture(scope="module")
def varied(parts: Path) -> Path:
    """Twelve pictures of different sizes, one of them there twice, and text alone."""
    folder = parts / "varied"
    rows: list[dict[str, Any]] = []
    folder.mkdir()
    for n in range(12):
        noise(n % 11, 24).resize((30 + 7 * (n % 11), 60 - 4 * (n % 11))).save(folder / f"{n}.png")
        said = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": f"number {n}"}]
        rows.append({"messages": said, "images": [f"{n}.png"]})
    talk = [{"role": "user", "content": "which?"}, {"role": "assistant", "content": "neither"}]
    both = [{"role": "user", "content": "<image>or<image>?"}, {"role": "assistant", "content": "both"}]
    rows += [{"messages": talk}, {"messages": both, "images": ["0.png", "3.png"]}]
    write_lines(folder / "talk.jsonl", rows)
    tiny_siglip(parts / "siglip", image_size=32, patch_size=8)
    return folder / "talk.jsonl"


def with_encoders(parts: Path, varied: Path, workers: int, **encoders: dict[str, Any]) -> Recipe:
    """A recipe whose one connector reads all the encoders, which are CLIPs unless something else is said."""
    mix = [{"kind": "files", "path": str(varied)}]
    for name, encoder in encoders.items():
        encoders[name] = {"kind": "transformers", **encoder, "path": str(parts / encoder.get("path", "clip"))}
    connector = {"encoders": sorted(encoders), "projector": {"kind": "mlp", "depth": 2}}
    return tiny_recipe(
        parts,
        tiny_stage(data={"mix": mix, "workers": workers}, steps=7),
        encoders=encoders,
        connectors={"image": connector},
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "encoders",
    [
        {"a": {"aspect": "tiles"}},
        {"a": {"layer": (0, -2), "aspect": "pad"}, "b": {"path": "siglip"}},
        {"a": {"tokens": "pooled"}},
        {"a": {"tokens": "all"}},
    ],
    ids=["tiles", "two encoders", "pooled", "all tokens"],
)
def test_every_kind_of_features(
    parts: Path,
    varied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoders: dict[str, dict[str, Any]],
    workers: int,
) -> None:
    recipe = with_encoders(parts, varied, workers, **encoders)
    report = written(recipe, tmp_path / "f")
    assert {each.media for each in report.encoders.values()} == {11}
    assert set(report.encoders) == set(encoders)
    cached = reading(recipe, tmp_path / "f")
    assert_same_steps(cached, recipe, TINY)
    with nothing_encoded_or_decoded(monkeypatch):
        list(steps(cached))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_missing_is_encoded_beside_what_is_there(
    parts: Path, varied: Path, tmp_path: Path, workers: int
) -> None:
    """Some media are there for both encoders, some for one of them, some for none."""
    recipe = with_encoders(parts, varied, workers, a={}, b={"path": "siglip"})
    folder, limited = tmp_path / "f", recipe.stages[0].model_dump() | {"epochs": 1, "steps": None}
    limited["data"] = {"mix": [{"kind": "files", "path": str(varied), "limit": 6}]}
    few = Recipe.model_validate(recipe.model_dump() | {"stages": [limited]})
    assert written(few, folder).encoders["a"].media == 6
    limited["data"]["mix"][0]["limit"] = 3
    fewer = Recipe.model_validate(recipe.model_dump() | {"stages": [limited]})
    shutil.rmtree(folder / "b")
    assert [each.media for each in written(fewer, folder).encoders.values()] == [6, 3]
    mixed = reading(recipe, folder, "encode")
    kinds = {name: set[frozenset[type]]() for name in "ab"}
    for batch in training_batches(Bridge(mixed), mixed.stages[0], seed=0)[0]:
        for name, views in batch.views.items():
            kinds[name].add(frozenset(map(type, views)))
    assert all(frozenset({Stored, Views}) in found for found in kinds.values())  # within one batch
    assert_same_steps(mixed, recipe, TINY)
    with pytest.raises(FeatureError, match=r"f/[ab]: expected features of .*png.*, found none; add them with mmbridge"):
        list(steps(reading(recipe, folder, "raise")))


@pytest.mark.slow
def test_a_bf16_cache_is_the_encoder_rounded_to_bf16(
    parts: Path, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, each medium encoded by itself in both."""
    recipe = with_encoders(parts, varied, 0, a={"aspect": "tiles"})
    written(recipe, tmp_path / "f", Manner(batch=1))
    cached, encode = list(steps(reading(recipe, tmp_path / "f"))), VisionEncoder.encode

    def rounded(self: VisionEncoder, media: Sequence[Prepared]) -> Any:
        kept = [apart(encode(self, [medium]))[0] for medium in media]
        short = [replace(each, values=each.values.bfloat16()) for each in kept]
        return together(short, None, next(self.model.parameters()), self.facts.prefix)

    monkeypatch.setattr(VisionEncoder, "encode", rounded)
    live = list(steps(recipe))
    assert [loss for loss, _ in cached] == [loss for loss, _ in live]
    assert all(equal(found, expected) for (_, found), (_, expected) in zip(cached, live, strict=True))


def test_flops_drop_by_exactly_those_of_the_encoder(parts: Path, varied: Path, tmp_path: Path) -> None:
    recipe = with_encoders(parts, varied, 0, a={"aspect": "tiles", "layer": -2})
    written(recipe, tmp_path / "f")
    executed, needed, encoders = [], [], []
    for each in (recipe, reading(recipe, tmp_path / "f")):
        bridge, stage = Bridge(each), each.stages[0]
        unfreeze(bridge, stage, "stages.align", parts=["connectors."])
        engine, batch = TorchEngine(bridge, stage, 1, "stages.align"), next(iter(training_batches(bridge, stage, 0)[0]))
        counted, terms = StepFlops(engine.objectives), engine.terms([batch])
        executed.append(executed_flops(lambda e=engine, b=batch, t=terms: e.backward(e.losses(b, t))))  # type: ignore[misc]
        needed.append(counted.needed(batch))
        encoders.append(counted.encoders(batch))
    assert encoders[0] > encoders[1] == 0
    assert executed[0] - executed[1] == needed[0] - needed[1] == encoders[0]


def test_a_run_reads_features_and_its_bridge_knows_nothing_of_them(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation by loss and by answers read them as well; resumed without them, the run goes on."""
    held_out = {"mix": [{"kind": "files", "path": "DATA", "task": "caption", "limit": 6}]}
    validation = {"data": held_out, "every": 3, "metric": "caption.exact"}
    recipe = tiny_recipe(parts, tiny_stage(validation=validation))
    report = written(recipe, tmp_path / "f")
    assert report.seen.keys() == {"align", "align.validation"}
    assert report.encoders["image"].media == 8  # sixteen files of eight different contents
    live, cached = tmp_path / "live", tmp_path / "cached"
    train(recipe, live)
    with nothing_encoded_or_decoded(monkeypatch):
        trained_now = train(reading(recipe, tmp_path / "f"), cached)
    assert trained_now.caption(noise(1, 50), max_new_tokens=2).perceptual_tokens == 16  # of which there are no features
    assert curve(cached / "stages/align") == pytest.approx(curve(live / "stages/align"), rel=1e-5)
    for name, each in weights(cached).items():
        assert_close(each, weights(live)[name], rtol=1e-4, atol=1e-5)
    shutil.rmtree(tmp_path / "f")
    bridge = Bridge.from_pretrained(cached, device="cpu")
    assert bridge.recipe == Bridge.from_pretrained(live, device="cpu").recipe
    assert bridge.caption(parts / "data/000.png", max_new_tokens=2).perceptual_tokens == 16
    train(recipe, cached, resume=True)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("encoders.image.layer=-2", "layer -2, found them made with layer -1; make them anew with mmbridge data cache"),
        ("encoders.image.aspect=pad", "aspect pad, found them made with aspect own; make"),
        ("weights", "contents .{12}, found them made with contents .{12}; make"),
    ],
)
def test_stale_features_are_refused_by_name(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, line: str
) -> None:
    encoder = shutil.copytree(parts / "clip", tmp_path / "clip")
    recipe = tiny_recipe(parts, encoders={"image": {"kind": "transformers", "path": str(encoder)}})
    written(recipe, tmp_path / "f")
    (tmp_path / "tiny.yaml").write_text(recipe.dump(), encoding="utf-8")
    if change == "weights":
        tiny_clip(encoder, seed=1)
    changes = [] if change == "weights" else [change]
    capsys.readouterr()
    command = ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), f"features.path={tmp_path}/f"]
    assert run([*command, *changes]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(f"{tmp_path}/f/image: expected features of {encoder} with {line}", said)
    assert not (tmp_path / "run").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from mmbridge.data import feature_writing
from mmbridge.recipe_file import load
from mmbridge.feature_caching import Caching
from mmbridge.data.feature_writing import Manner
import torch

write, left = feature_writing.write_shard, [3]

def killing(path, keys, media):
    left[0] -= 1
    if not left[0]:
        path.with_suffix(".partial").write_bytes(b"half of a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, keys, media)

feature_writing.write_shard = killing
manner = Manner(batch=2, shard_bytes=int(sys.argv[3]))
Caching(load(sys.argv[1]), Path(sys.argv[2]), manner=manner).write(torch.device("cpu"))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_killed_and_run_again_has_the_same_content(parts: Path, varied: Path, tmp_path: Path) -> None:
    """Two encoders, three media a shard; killed while the third is written, and again in the second encoder's."""
    recipe = with_encoders(parts, varied, 0, a={}, b={"path": "siglip"})
    (tmp_path / "r.yaml").write_text(recipe.dump(), encoding="utf-8")
    size = 3 * 16 * 32 * 2
    manner = Manner(batch=2, shard_bytes=size)
    written(recipe, tmp_path / "whole", manner)
    assert len(list((tmp_path / "whole/a").glob("0*.safetensors"))) == 4
    for shards in (2, 4):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "r.yaml"), str(tmp_path / "cut"), str(size)]
        done = subprocess.run(command, capture_output=True, check=False, env=os.environ)
        assert done.returncode == -9, done.stderr.decode()
        assert len(list((tmp_path / "cut/a").glob("0*.safetensors"))) == shards
        assert (tmp_path / "cut/a/index.safetensors").exists() == (shards == 4)
        assert len(list((tmp_path / "cut").rglob("*.partial"))) == 1
    with pytest.raises(FeatureError, match=r"cut/b: expected finished features, found no index"):
        Bridge(reading(recipe, tmp_path / "cut"))
    report = written(recipe, tmp_path / "cut", manner)
    assert [each.media for each in report.encoders.values()] == [11, 11]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_byte(parts: Path, varied: Path, tmp_path: Path, workers: int) -> None:
    recipe = with_encoders(parts, varied, 0, a={"aspect": "tiles"})
    written(recipe, tmp_path / "alone", Manner(shard_bytes=20_000))
    written(recipe, tmp_path / "helped", Manner(shard_bytes=20_000, workers=workers))
    assert len(contents(tmp_path / "alone")) > 4
    assert contents(tmp_path / "alone") == contents(tmp_path / "helped")


def test_media_that_cannot_be_decoded(parts: Path, tmp_path: Path) -> None:
    """They stop it, or are left out and told; what training does with them stays training's to decide."""
    folder = shutil.copytree(parts / "data", tmp_path / "data")
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
    (folder / "005.png").unlink()
    mix = {"mix": [{"kind": "files", "path": str(folder), "task": "caption"}]}
    with pytest.raises(MediaError, match=r"005.png.*no such file"):
        written(tiny_recipe(parts, tiny_stage(data=mix, steps=4)), tmp_path / "f")
    stage = tiny_stage(data=mix | {"on_bad_sample": {"skip_up_to": 0.2}}, steps=4)
    report = written(tiny_recipe(parts, stage), tmp_path / "f")
    assert [problem.kind for problem in report.skipped] == ["expected an image", "expected a whole image"]
    assert report.encoders["image"].media == 8  # the ninth to sixteenth show the same
    cached = reading(tiny_recipe(parts, stage), tmp_path / "f", "encode")
    batches, _ = training_batches(Bridge(cached), cached.stages[0], 0)
    assert len([sample for batch in batches for sample in batch.samples]) == 14
    assert sorted(batches.skipped) == ["003.png", "005.png"]


def test_features_that_are_damaged_are_no_bad_sample(parts: Path, tmp_path: Path) -> None:
    """A stage that leaves bad samples out stops all the same, in the training process and in a worker."""
    for workers in (0, 1):
        data = {"mix": [{"kind": "files", "path": "DATA", "task": "caption"}], "workers": workers}
        recipe = tiny_recipe(parts, tiny_stage(data=data | {"on_bad_sample": {"skip_up_to": 0.9}}))
        folder = tmp_path / str(workers)
        written(recipe, folder)
        shard = folder / "image/00000.safetensors"
        data_ = bytearray(shard.read_bytes())
        start = 8 + int.from_bytes(data_[:8], "little")
        values = json.loads(data_[8:start])["values"]["data_offsets"]
        for at in range(values[0], values[1], 64):
            data_[start + at] ^= 255
        shard.write_bytes(bytes(data_))
        with pytest.raises(FeatureError, match=r"00000.safetensors: expected the features that were written"):
            list(steps(reading(recipe, folder)))


def test_features_that_a_number_format_cannot_hold(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = VisionEncoder.forward

    def large(self: VisionEncoder, *arguments: Any) -> Any:
        found = forward(self, *arguments)
        return replace(found, values=found.values * 1e6)

    monkeypatch.setattr(VisionEncoder, "forward", large)
    with pytest.raises(FeatureError, match=r"f/image: expected finite features, found some that are not in float16"):
        written(tiny_recipe(parts), tmp_path / "f", Manner(dtype=torch.float16))
    assert written(tiny_recipe(parts), tmp_path / "g", Manner()).encoders["image"].media == 8


def test_what_several_processes_will_draw(parts: Path, tmp_path: Path) -> None:
    """One step of two on each of four processes is half of the files, of two on one an eighth."""
    recipe = tiny_recipe(parts, tiny_stage(batch=2, steps=1))
    assert Caching(recipe, tmp_path / "one").write(CPU).seen["align"].drawn == 2
    assert Caching(recipe, tmp_path / "four", processes=4).write(CPU).seen["align"].drawn == 8
    whole = tiny_recipe(parts, tiny_stage(batch=3, epochs=2, steps=None))
    assert Caching(whole, tmp_path / "whole").write(CPU).seen["align"].drawn == 33  # the last step is filled up


def test_gains_are_those_of_the_formulas(parts: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(parts, tiny_stage(batch=16))
    (gain,) = Caching(recipe, tmp_path / "f").gains().values()
    bridge, stage = Bridge(recipe), recipe.stages[0]
    unfreeze(bridge, stage, "stages.align", parts=["connectors."])
    engine = TorchEngine(bridge, stage, 1, "stages.align")  # sets how the LLM reads batches
    flops, batches = StepFlops(engine.objectives), training_batches(bridge, stage, seed=0)[0]
    taken = [batch for batch, _ in zip(batches, range(2), strict=False)]
    encoders, whole = sum(map(flops.encoders, taken)), sum(map(flops.needed, taken))
    assert (gain.encoders, gain.rest) == (encoders, whole - encoders)
    assert gain.ratio == pytest.approx(whole / (whole - encoders))
