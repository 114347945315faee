"""A step dealt by lengths: the samples it has, no pass over the budget, as many passes in every process."""

import random
from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmbridge.data.collate import Collate
from mmbridge.data.config import SkipConfig
from mmbridge.data.dealing import Extent, dealt, grouped
from mmbridge.data.loader import Loader
from mmbridge.data.media import image_size
from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Question, Record
from mmbridge.data.sample import Medium
from mmbridge.data.sources import RecordSource
from mmbridge.encoders.tiles import cut, default_pinpoints, tiled
from mmbridge.ranks import Ranks
from tests.data.test_loader import length, prepare, prompt

WORDS = Collate(prompt, {"one": ("image", prepare)}, length, 10_000)


def extents(seed: int) -> list[Extent]:
    draw = random.Random(seed)
    lengths = [draw.choice([draw.randint(1, 50), draw.randint(1, 400)]) for _ in range(draw.randint(1, 60))]
    return [(each, 1, each) for each in lengths]


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(10))
def test_passes_are_full_and_even(seed: int, processes: int) -> None:
    """Never more than one pass over what the lengths alone ask for, where samples are small beside the budget."""
    found, budget = extents(seed), 800
    hands = dealt(found, processes, budget)
    assert sorted(chain.from_iterable(chain.from_iterable(hands))) == list(range(len(found)))
    assert len({len(hand) for hand in hands}) == 1
    filled = [sum(found[number][0] for number in numbers) for hand in hands for numbers in hand]
    assert max(filled) <= budget
    assert max(filled) - min(filled) <= max(extent[0] for extent in found)
    total = sum(extent[0] for extent in found)
    assert len(hands[0]) <= -(-total // (processes * (budget - 400)))


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_padded_passes_hold_samples_of_about_one_length(seed: int, processes: int) -> None:
    found, budget = extents(seed), 2000
    hands = grouped(found, processes, budget)
    assert sorted(chain.from_iterable(chain.from_iterable(hands))) == list(range(len(found)))
    assert len({len(hand) for hand in hands}) == 1
    passes = [[found[number][2] for number in numbers] for hand in hands for numbers in hand if numbers]
    assert all(len(lengths) * max(lengths) <= budget for lengths in passes)
    passes.sort(key=max, reverse=True)
    for longer, shorter in pairwise(passes):
        assert min(longer) >= max(shorter)


def test_a_sample_over_the_budget_has_a_pass_to_itself() -> None:
    found: list[Extent] = [(10, 1, 10), (90, 1, 90), (10, 1, 10)]
    assert dealt(found, 1, 20) == [[[1], [0, 2]]]
    assert grouped(found, 1, 20) == [[[1], [0, 2]]]


def texts(count: int, bad: int | None = None) -> RecordSource:
    draw = random.Random(0)
    picture = Image.new("RGB", (8, 8))
    records = [
        Record(f"r{n}", Medium("image", b"damaged" if n == bad else picture, f"r{n}"), "x" * draw.randint(1, 90))
        for n in range(count)
    ]
    return RecordSource(records, "caption", prompts=("?",))


def seen(processes: int, workers: int = 0, packed: bool = True, budget: int = 150) -> list[list[set[str]]]:
    """For each step the samples of each process."""
    found = []
    for rank in range(processes):
        mixture = Mixture([texts(40)], [1], 0)
        loader = Loader(
            mixture,
            WORDS,
            batch=12 // processes,
            batches=5,
            workers=workers,
            ranks=Ranks(rank, processes),
            budget=budget,
            packed=packed,
        )
        steps = list(loader.steps())
        assert len(steps) == 5
        for batch in chain.from_iterable(steps):
            lengths = [WORDS.extent(sample)[0] for sample in batch.samples]
            assert (sum(lengths) if packed else len(lengths) * max(lengths, default=0)) <= budget
        found.append([{prompt.sample for batch in step for prompt in batch.prompts} for step in steps])
    return [list(step) for step in zip(*found, strict=True)]


@pytest.mark.parametrize("packed", [True, False])
def test_a_step_has_its_samples_whatever_the_processes_and_workers(packed: bool) -> None:
    whole = [set.union(*hands) for hands in seen(1, packed=packed)]
    plain = Loader(Mixture([texts(40)], [1], 0), WORDS, batch=12, batches=5)
    assert whole == [{prompt.sample for prompt in batch.prompts} for batch in plain]
    for processes, workers in ((2, 0), (3, 1), (1, 3)):
        hands = seen(processes, workers, packed)
        assert [set.union(*step) for step in hands] == whole
        assert all(sum(map(len, step)) == 12 for step in hands)


def test_a_resumed_loader_goes_on_with_the_next_step() -> None:
    def loader() -> Loader:
        return Loader(Mixture([texts(40)], [1], 0), WORDS, batch=12, batches=5, budget=150)

    whole = [[batch.prompts for batch in step] for step in loader().steps()]
    first = loader()
    running = first.steps()
    next(running), next(running)
    assert first.state().values["draws"] == 24
    again = loader()
    again.load_state(first.state())
    assert [[batch.prompts for batch in step] for step in again.steps()] == whole[2:]


def test_a_bad_sample_is_left_out_by_one_process() -> None:
    skipped = []
    for rank in range(2):
        mixture = Mixture([texts(24, bad=7)], [1], 0)
        policy = SkipConfig(skip_up_to=0.1)
        ranks = Ranks(rank, 2)
        loader = Loader(mixture, WORDS, batch=6, batches=2, ranks=ranks, budget=150, on_bad_sample=policy)
        list(loader.steps())
        skipped += loader.skipped
    assert skipped == ["r7"]


def test_a_medium_of_several_texts_counts_once() -> None:
    picture = Medium("image", Image.new("RGB", (8, 8)), "p")
    record = Record("r", picture, questions=tuple(Question("q" * n, ("a" * n,)) for n in (1, 2, 3)))
    (drawn,) = [RecordSource([record], "vqa", together=3)[0]]
    assert WORDS.extent(drawn) == (10 + 2 + 4 + 6, 3, 10 + 6)


def test_extents_of_tiled_images_are_known_from_their_headers(tmp_path: Path) -> None:
    size = (16, 16)
    pinpoints = default_pinpoints(size)
    for width, height in ((40, 10), (10, 40), (30, 31)):
        image = Image.new("RGB", (width, height))
        turned = Image.Exif()
        turned[0x0112] = 6  # on its side
        for name, exif in (("plain.jpg", None), ("turned.jpg", turned)):
            image.save(tmp_path / name, exif=exif or Image.Exif())
            medium = Medium("image", tmp_path / name, name)
            known = image_size(medium)
            assert known == ((width, height) if exif is None else (height, width))
            collate = Collate(prompt, {}, tiling=lambda w, h: tiled(h, w, size, pinpoints))
            views, tiling = cut(pixels(known), size, pinpoints, "bicubic")
            assert collate._tiling(medium) == tiling
            assert len(views) == tiling.views


def pixels(size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(3, size[1], size[0], dtype=torch.uint8)
