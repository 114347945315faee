"""The loader beside a plain folder read by hand, and beside what training takes: ``python benchmarks/loader.py``.

The same JPEG images and captions in every format, one worker's work in one thread: bytes to prompts and pixels for the
encoder of the shape ``small``, in random order. By hand is Pillow, the encoder's own image processor and the LLM's
tokenizer. Then reading alone, without decoding; then training steps of ``training_step.py``, with the encoder and with
its features ready. Writes ``results/loader.json``: rates, and how fast a device may train for one worker's core to
yield three times what it takes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import torch
from paired import AGAIN, lines, paired
from photographs import write_photographs
from PIL import Image
from random_llava import SHAPES, Shape, options, write
from record import Record
from training_step import SETTINGS, STAGE, ours
from transformers import AutoImageProcessor

from mmbridge.data.collate import Collate
from mmbridge.data.formats import METADATA, open_source
from mmbridge.data.loader import Loader
from mmbridge.data.mixture import Mixture
from mmbridge.data.pack import pack
from mmbridge.data.sources import RecordSource
from mmbridge.encoders.config import TransformersConfig
from mmbridge.flops import StepFlops
from mmbridge.llm.config import LLMConfig
from mmbridge.objectives.weighted import WeightedObjectives

BATCH = 16
MARGIN = 3.0
"""How many times what training takes the loader is to yield."""
LIVE, READY = "with the encoder", "features ready"
BY_HAND = "plain folder, by hand"
ASKED = "Describe the image."


def captions(count: int) -> list[str]:
    return [
        f"A photograph of thing {number}, seen from close by in the light of the afternoon." for number in range(count)
    ]


def write_formats(folder: Path, images: Sequence[Path]) -> dict[str, Path]:
    """The images, which lie in ``folder``, and their captions in every format; returns what to open."""
    texts = captions(len(images))
    for image, text in zip(images, texts, strict=True):
        image.with_suffix(".txt").write_text(text)
    named = list(zip([image.name for image in images], texts, strict=True))
    _lines(folder / METADATA, [{"file_name": name, "text": text} for name, text in named])
    llava = [
        {"id": name, "image": name, "conversations": [_said("human", f"<image>\n{ASKED}"), _said("gpt", text)]}
        for name, text in named
    ]
    (folder / "llava.json").write_text(json.dumps(llava))
    chat = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "path": name}, {"type": "text", "text": ASKED}]},
                {"role": "assistant", "content": text},
            ]
        }
        for name, text in named
    ]
    _lines(folder / "chat.jsonl", chat)
    pack(folder, folder / "shards", "folder")
    stored = {"image": [{"bytes": image.read_bytes(), "path": image.name} for image in images], "text": texts}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict(stored, features)
    table.save_to_disk(str(folder / "saved"))
    table.to_parquet(str(folder / "table.parquet"))
    return {
        "metadata.jsonl": folder / METADATA,
        "shards": folder / "shards",
        "LLaVA JSON": folder / "llava.json",
        "chat JSON lines": folder / "chat.jsonl",
        "saved Dataset": folder / "saved",
        "Parquet": folder / "table.parquet",
    }


def _said(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_hand(folder: Path, model: Path, tokenizer: Any) -> Callable[[], None]:
    """A pass over a plain folder, as one writes it without a library."""
    processor = AutoImageProcessor.from_pretrained(model)  # type: ignore[no-untyped-call]
    paths = sorted(folder.glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))

    def sample(path: Path) -> tuple[torch.Tensor, list[int]]:
        with Image.open(path) as image:
            pixels = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        said = [("user", f"<image>\n{ASKED}"), ("assistant", path.with_suffix(".txt").read_text())]
        messages = [{"role": role, "content": content} for role, content in said]
        return pixels, tokenizer.apply_chat_template(messages)["input_ids"]

    def run() -> None:
        for start in range(0, len(order), BATCH):
            made = [sample(paths[index]) for index in order[start : start + BATCH]]
            torch.stack([pixels for pixels, _ in made])

    return run


def loaded(source: RecordSource, collate: Collate) -> Callable[[], None]:
    """A pass of the loader over a data set.

    Raises:
        AssertionError: it yields another number of samples or of images than there are.
    """
    loader = Loader(Mixture([source], [1.0], seed=0), collate, batch=BATCH)

    def run() -> None:
        found = [(len(batch), len(batch.views["image"])) for batch in loader]
        assert np.sum(found, axis=0).tolist() == [len(source)] * 2, f"expected {len(source)} samples, found {found}"

    return run


def read_by_hand(folder: Path) -> Callable[[], int]:
    """Reads every file of a plain folder; returns the bytes of all images."""
    paths = sorted(str(path) for path in folder.glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))

    def run() -> int:
        total = 0
        for index in order:
            with open(paths[index], "rb") as file:
                total += len(file.read())
        return total

    return run


def read(source: RecordSource) -> Callable[[], int]:
    """Reads every sample and the bytes of its images, undecoded; returns the bytes of all images."""
    mixture = Mixture([source], [1.0], seed=0)

    def files() -> Iterator[bytes]:
        for draw in range(len(source)):
            for medium in mixture[draw].media:
                if isinstance(medium.source, Path):
                    yield medium.source.read_bytes()
                else:
                    assert isinstance(medium.source, bytes)
                    yield medium.source

    return lambda: sum(map(len, files()))


def training(folder: Path, shape: Shape) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """A step with the encoder, and one whose features are ready; the FLOPs that each needs."""
    steps, needed = dict[str, Callable[[], object]](), dict[str, int]()
    for kind, name in ((LIVE, "live"), (READY, "cached")):
        setting = SETTINGS[name]
        bridge, batches, steps[kind] = ours(folder, shape, setting.texts(shape), setting)
        needed[kind] = sum(map(StepFlops(WeightedObjectives(bridge, STAGE.objectives)).needed, batches))
    return steps, needed


def measured(shape: Shape, images: int, rounds: int) -> dict[str, Any]:
    """All figures: samples per second of CPU time, microseconds of it for reading one, and ratios to training."""
    with TemporaryDirectory() as name:
        folder, model = Path(name), Path(name) / "model"
        photographs = write_photographs(folder, images)
        formats = write_formats(folder, photographs)
        size = sum(path.stat().st_size for path in photographs)
        write(shape, model)
        prompter = LLMConfig(path="world:llm").build().prompter
        prepare = TransformersConfig(path=str(model)).build().prepare
        collate = Collate(prompter.training, {"image": ("image", prepare)})
        sources = {form: open_source(path) for form, path in formats.items()}
        passes = {BY_HAND: by_hand(folder, model, prompter.tokenizer)}
        passes |= {form: loaded(source, collate) for form, source in sources.items()}
        whole = paired(passes, rounds)
        raw = {BY_HAND: read_by_hand(folder)} | {form: read(source) for form, source in sources.items()}
        for form, each in raw.items():
            assert (found := each()) == size, f"{form}: expected {size:,} bytes of images, found {found:,}"
        reading = paired(raw, rounds)
        steps, needed = training(model, shape)
        times = paired(steps, rounds)
    rates = {form: images / found["seconds"] for form, found in whole.items() if AGAIN not in form}
    taken = {kind: shape.samples / times[kind]["seconds"] for kind in steps}
    return {
        "images": images,
        "bytes an image": size / images,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "passes": whole,
        "samples per second": rates,
        "reading": reading,
        "microseconds to read a sample": {form: 1e6 * reading[form]["seconds"] / images for form in rates},
        "training": times,
        "samples per second of training": taken,
        "loader over training": {
            kind: {form: rate / consumed for form, rate in rates.items()} for kind, consumed in taken.items()
        },
        "TFLOP/s fed by a core": {
            kind: {form: rate / MARGIN * flops / shape.samples / 1e12 for form, rate in rates.items()}
            for kind, flops in needed.items()
        },
    }


def main() -> None:
    parser = options(__doc__, 5)
    parser.add_argument("--images", type=int, default=1024)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record = Record("loader")
    record.keep(given.shape, measured(SHAPES[given.shape], given.images, given.rounds))
    found = record.figures[given.shape]
    print("bytes to prompts and pixels, a pass", *lines(found["passes"]), sep="\n")
    print("bytes alone, a pass", *lines(found["reading"]), sep="\n")
    for kind, consumed in found["samples per second of training"].items():
        print(f"training, {kind}: {consumed:.2f} samples a second of CPU time; the loader")
        for form, ratio in found["loader over training"][kind].items():
            rate, fed = found["samples per second"][form], found["TFLOP/s fed by a core"][kind][form]
            print(f"{form:<40}{rate:>9.1f} samples a second   × {ratio:.0f}   feeds {fed:.1f} TFLOP/s × {MARGIN:.0f}")


if __name__ == "__main__":
    main()
