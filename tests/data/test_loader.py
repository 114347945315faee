"""Batches: the same with any number of workers, whole or resumed, and what bad samples do to them."""

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from mmbridge.checkpoint import State
from mmbridge.data import parquet
from mmbridge.data.batch import Batch
from mmbridge.data.collate import Collate
from mmbridge.data.config import DataConfig, SkipConfig
from mmbridge.data.loader import Loader
from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Record
from mmbridge.data.sample import Medium, MediumKind, Sample, conversation
from mmbridge.data.sources import RecordSource
from mmbridge.encoders.base import Picture, Tiling, Views
from mmbridge.errors import DataError, MediaError, UserError
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.ranks import ALONE, Ranks
from tests.data.parquets import captions
from tests.data.pictures import encoded, header_only_png, noise


def prompt(sample: Sample) -> Prompt:
    """A token a character, a placeholder for each medium in front."""
    if "refuse" in sample.id:
        raise DataError(f"sample {sample.id}", "refused")
    text = "".join(part for message in sample.messages for part in message.content if isinstance(part, str))
    media = tuple(Placeholder(n, medium.kind) for n, medium in enumerate(sample.media))
    ids = tuple([0] * len(media) + [ord(letter) for letter in text])
    return Prompt(sample.id, ids, tuple([False] * len(media) + [True] * len(text)), media, text)


def prepare(picture: Picture) -> Views:
    return Views(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


def tile(picture: Picture) -> Views:
    """As many views as the picture's first pixel says, up to three."""
    views = prepare(picture).inputs
    count = 1 + int(views.flatten()[0]) % 3
    return Views(views.expand(count, -1, -1, -1).clone(), Tiling(1, count - 1, 8, 8))


def length(kind: MediumKind, tilings: Sequence[Tiling | None]) -> int:
    return sum(10 if tiling is None else 10 * tiling.views for tiling in tilings)


COLLATE = Collate(prompt, {"one": ("image", prepare), "two": ("image", tile)})


def gone_on(loader: Loader, batches: int, skipped: Sequence[str] = ()) -> Loader:
    """The loader, put where so many batches have been taken and these samples left out."""
    loader.load_state(State({}, {"draws": 4 * batches, "skipped": list(skipped)}))
    return loader


def records(count: int, bad: Sequence[int] = (), name: str = "r") -> RecordSource:
    """Captioned pictures; those in ``bad`` are damaged."""
    media = [b"damaged" if n in bad else encoded(noise(n)) for n in range(count)]
    made = [Record(f"{name}{n}", Medium("image", data, f"{name}{n}"), f"text {n}") for n, data in enumerate(media)]
    return RecordSource(made, "caption", name=name)


def mixture(count: int = 20, bad: Sequence[int] = ()) -> Mixture:
    return Mixture([records(count, bad), records(7, name="s")], [2, 1], 11)


def ids(batches: Sequence[Batch]) -> list[list[str]]:
    return [[sample.id for sample in batch.samples] for batch in batches]


def assert_equal(left: Sequence[Batch], right: Sequence[Batch]) -> None:
    assert [batch.prompts for batch in left] == [batch.prompts for batch in right]
    assert ids(left) == ids(right)
    for one, other in zip(left, right, strict=True):
        assert one.views.keys() == other.views.keys()
        for name, views in one.views.items():
            assert [view.tiling for view in views] == [view.tiling for view in other.views[name]]
            for a, b in zip(views, other.views[name], strict=True):
                assert isinstance(a, Views)
                assert isinstance(b, Views)
                assert torch.equal(a.inputs, b.inputs)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    alone = list(Loader(mixture(), COLLATE, batch=4, batches=9))
    assert_equal(list(Loader(mixture(), COLLATE, batch=4, batches=9, workers=workers)), alone)


def test_a_resumed_stage_goes_on_as_if_never_stopped() -> None:
    whole = list(Loader(mixture(), COLLATE, batch=4, batches=20))
    assert_equal(list(gone_on(Loader(mixture(), COLLATE, batch=4, batches=20), 13)), whole[13:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_knows_where_it_stands(workers: int) -> None:
    """What workers have read ahead does not count; going on from there gives the rest."""
    loader = Loader(mixture(), COLLATE, batch=4, batches=9, workers=workers)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state()
    assert state.values["draws"] == 12
    rest = Loader(mixture(), COLLATE, batch=4, batches=9, workers=workers)
    rest.load_state(state)
    assert_equal(list(rest), list(batches))


def test_ranks_cut_the_same_draws_evenly() -> None:
    alone = ids(list(Loader(mixture(), COLLATE, batch=6, batches=5)))
    ranks = [ids(list(Loader(mixture(), COLLATE, batch=3, batches=5, ranks=Ranks(rank, 2)))) for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_order_of_blocks_depends_on_neither_workers_nor_ranks(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet, past the end of an epoch, whole and resumed on another number of processes."""
    pytest.importorskip("datasets", reason="needs the extra hf")
    monkeypatch.setattr(parquet, "MOST", 2)
    files = [
        captions(tmp_path / f"{name}.parquet", numbers, 4) for name, numbers in (("a", range(30)), ("b", range(9)))
    ]
    mix = [{"kind": "files", "path": str(file), "weight": weight} for weight, file in enumerate(files, 1)]
    config = DataConfig.model_validate({"mix": mix})

    def batches(size: int, ranks: Ranks = ALONE, workers: int = 0, first: int = 0) -> list[list[str]]:
        loader = Loader(config.build(3), COLLATE, batch=size, batches=60, workers=workers, ranks=ranks)
        loader.load_state(State({}, {"draws": first * 6, "skipped": []}))
        return ids(list(loader))

    alone = batches(6)
    assert batches(6, workers=workers) == alone
    shares = [batches(3, Ranks(rank, 2), workers, first=50) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == alone[50:]


def test_one_epoch_by_default_and_again_from_the_start() -> None:
    loader = Loader(mixture(), COLLATE, batch=5)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 5, 2]
    assert len(loader) == 6
    assert ids(list(loader)) == ids(batches)


def test_views_follow_the_media() -> None:
    two = Sample("two", conversation(("user", [Medium("image", noise(1)), Medium("image", noise(2)), "which?"])))
    none = Sample("none", conversation(("user", ["hello"])))
    one = Sample("one", conversation(("user", [Medium("image", noise(3)), "what?"])))
    batch = COLLATE([two, none, one])
    assert len(batch) == 3
    for n, view in enumerate(batch.views["one"], start=1):
        assert isinstance(view, Views)
        assert torch.equal(view.inputs, prepare(noise(n)).inputs)
    assert [len(view.inputs) for view in batch.views["two"] if isinstance(view, Views)] == [
        len(tile(noise(n)).inputs) for n in (1, 2, 3)
    ]
    assert COLLATE([none]).views == {"one": [], "two": []}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_batch_survives_the_way_from_a_worker(dtype: torch.dtype) -> None:
    def prepared(picture: Picture) -> Views:
        return Views(prepare(picture).inputs.to(dtype))

    batch = Collate(prompt, {"one": ("image", prepared), "two": ("image", tile)})([records(3)[n] for n in range(3)])
    back: Batch = pickle.loads(pickle.dumps(batch))
    assert_equal([back], [batch])
    assert [view.inputs.dtype for view in back.views["one"] if isinstance(view, Views)] == [dtype] * 3
    empty = COLLATE([])
    assert_equal([pickle.loads(pickle.dumps(empty))], [empty])


def test_the_views_of_an_encoder_travel_as_one_tensor() -> None:
    """Each tensor takes a file descriptor on its way from a worker, and a process has about a thousand."""
    _, (_, packed, *_) = COLLATE([records(50)[n] for n in range(50)]).__reduce__()
    assert [len(each.inputs) for each in packed.values()] == [1, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_stops_the_run_by_default(workers: int) -> None:
    loader = Loader(mixture(bad=[3]), COLLATE, batch=4, workers=workers)
    with pytest.raises(MediaError, match=r"^sample r3: r3: expected an image .* begins with b'damag"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_sample_leaves_a_gap_and_moves_no_other(workers: int) -> None:
    good = ids(list(Loader(mixture(), COLLATE, batch=4)))
    policy = SkipConfig(skip_up_to=0.15)
    loader = Loader(mixture(bad=[3, 8]), COLLATE, batch=4, workers=workers, on_bad_sample=policy)
    batches = list(loader)
    skipped = [bad.id for batch in batches for bad in batch.bad]
    assert set(skipped) == {"r3", "r8"}
    assert loader.skipped == skipped
    assert ids(batches) == [[id for id in batch if id not in skipped] for batch in good]
    assert all(isinstance(bad.error, MediaError) for batch in batches for bad in batch.bad)


def test_too_many_skipped_samples_stop_the_run() -> None:
    policy = SkipConfig(skip_up_to=0.08)
    loader = Loader(mixture(bad=[3, 8, 9]), COLLATE, batch=4, on_bad_sample=policy)
    with pytest.raises(DataError, match=r"^on_bad_sample: expected at most 2 bad samples, found 3, the last: sample r"):
        list(loader)
    resumed = gone_on(Loader(mixture(bad=[8]), COLLATE, batch=4, on_bad_sample=policy), 0, ["r3", "r9"])
    with pytest.raises(DataError, match="found 3"):
        list(resumed)


@pytest.mark.parametrize("workers", [0, 2])
def test_hostile_shards_end_with_exact_counts(tmp_path: Path, workers: int) -> None:
    """A cut JPEG in every hundred, a bomb, pickles, names that lead outside, and a shard that is cut off."""
    outside = sorted(tmp_path.parent.rglob("*"))
    pickled = f"cposix\nsystem\n(S'touch {tmp_path}/touched'\ntR.".encode()
    expected = set()
    with tarfile.open(tmp_path / "0.tar", "w") as whole, tarfile.open(tmp_path / "1.tar", "w") as cut:
        for n in range(400):
            tar, shard = (whole, "0") if n < 300 else (cut, "1")
            key = {5: "../up", 6: "/abs"}.get(n, f"{n}")
            image = header_only_png(60_000, 60_000) if n == 7 else encoded(noise(n), "JPEG", quality=95)
            if n % 100 == 50:
                image = image[: len(image) // 2]
            if n == 7 or n % 100 == 50 or n == 399:
                expected.add(f"{tmp_path}/{shard}.tar:399" if n == 399 else f"{n}")
            for kind, data in (("jpg", image), ("txt", b"x"), ("pkl", pickled), ("pth", pickled)):
                header = tarfile.TarInfo(f"{key}.{kind}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    data = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(data[: data.rindex(b"399.txt")])
    files = {"kind": "files", "path": f"{tmp_path}/{{0..1}}.tar", "task": "caption"}
    config = DataConfig.model_validate({"mix": [files], "on_bad_sample": {"skip_up_to": 0.02}})
    loader = Loader(config.build(0), COLLATE, batch=32, workers=workers, on_bad_sample=config.on_bad_sample)
    batches = list(loader)
    assert sum(map(len, batches)) == 400 - 6
    assert sorted(loader.skipped) == sorted(expected)
    assert {"../up", "/abs"} < {sample.id for batch in batches for sample in batch.samples}
    here = [tmp_path / "0.tar", tmp_path / "1.tar"]
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*outside, *here])


def test_a_source_that_cannot_be_read_is_a_bad_sample_too() -> None:
    class Broken:
        name = "broken"

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int, /) -> Sample:
            raise DataError("file:3", "no sample")

    with pytest.raises(DataError, match=r"^file:3: no sample"):
        list(Loader(Mixture([Broken()], [1], 0), COLLATE, batch=2))


def refusal(collate: Collate, sample: Sample) -> UserError:
    batch = collate([sample])
    assert len(batch) == 0
    assert batch.bad[0].id == sample.id
    return batch.bad[0].error


def test_what_is_refused_names_the_sample() -> None:
    image: Medium = Medium("image", noise(), "a")
    long = Collate(prompt, {"one": ("image", prepare)}, length, max_length=14)
    sample = Sample("x", conversation(("user", [image, "12345"])))
    assert str(refusal(long, sample)).startswith("sample x: expected at most 14 positions, found 15; shorten it")
    assert len(long([Sample("y", conversation(("user", [image, "1234"])))])) == 1
    tiled = Collate(prompt, {"two": ("image", tile)}, length, max_length=14)
    large = noise(next(n for n in range(9) if len(tile(noise(n)).inputs) == 3))
    assert "found 31" in str(refusal(tiled, Sample("x", conversation(("user", [Medium("image", large), "1"])))))
    assert str(refusal(COLLATE, Sample("refuse", ()))) == "sample refuse: refused"
    sound = Sample("x", conversation(("user", [Medium("audio", b"", "a.wav")])))
    assert str(refusal(COLLATE, sound)) == "sample x: expected media that an encoder takes (image), found audio"
    mute = Collate(lambda sample: Prompt("x", (1,), (True,), (), ""), {"one": ("image", prepare)})
    assert "expected a placeholder for each of 1 media, found 0" in str(refusal(mute, sample))


@pytest.mark.parametrize("kind", [DataError, MediaError])
def test_errors_come_back_from_workers(kind: type[UserError]) -> None:
    error = pickle.loads(pickle.dumps(kind("file:1", "expected x, found y", "mend it")))
    assert type(error) is kind
    assert str(error) == "file:1: expected x, found y; mend it"


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.slow
def test_parts_can_be_sent_to_spawned_workers(tmp_path: Path, method: Literal["fork", "spawn"]) -> None:
    alone = list(Loader(mixture(), COLLATE, batch=4, batches=2))
    loader = Loader(mixture(), COLLATE, batch=4, batches=2, workers=1)
    loader._loader.multiprocessing_context = method
    assert_equal(list(loader), alone)


def test_reading_ahead_leaves_the_generator_of_training_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(Loader(mixture(), COLLATE, batch=4, batches=2))
    assert torch.equal(torch.random.get_rng_state(), before)
