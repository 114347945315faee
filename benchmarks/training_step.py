"""A training step of the connector, beside transformers' LLaVA class: ``python benchmarks/training_step.py``.

Same weights, images, token ids, frozen parts and supervised tokens; forward and backward, without the optimiser, in
float32. transformers' class runs as its users run it, with gradient checkpointing, and without. Before anything is
timed, the projector's gradient must be the same. Five settings, with the same prompt in front of every image:

    live            a caption an image
    cached          the same, with the encoder's features at hand
    five captions   of each image, cached
    instruct        answers of very unequal lengths, in micro-batches; ours are dealt by length and packed
    fixed length    the same, where transformers' class is fed as nanoVLM feeds its own (``rows.py``)

Writes ``results/training_step.json``: seconds of CPU time, samples in one and ratios, the FLOPs each executes as torch
counts them, and those the step needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from paired import lines, paired
from random_llava import SHAPES, Shape, options, write
from record import Record
from rows import Rows, fixed, knapsacks, padded
from transformers import LlavaForConditionalGeneration
from twin_batch import Text, batch, captions, instructions, pictures

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.dealing import dealt
from mmbridge.encoders.stored import apart
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.frozen import freeze
from mmbridge.llava import load_llava
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.stage import StageConfig
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze

TOLERANCE = 1e-5
"""How far two gradients may be apart, relative to their length."""

STAGE = StageConfig.model_validate(
    {
        "name": "align",
        "script": "align",
        "train": ["connectors.*"],
        "objectives": [{"kind": "next_token"}],
        "data": {"mix": [{"kind": "files", "path": "none", "task": "caption"}]},
        "optim": {"lr": 1e-3},
        "batch": 1,
        "steps": 1,
    }
)
"""What a stage of alignment is; its data are not read."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How transformers' class is run: on which rows, and with gradient ``checkpointing`` or without."""

    rows: Rows
    checkpointing: bool = False


AS_USED = {"transformers, with checkpointing": Peer(padded, checkpointing=True), "transformers": Peer(padded)}
AS_NANOVLM = {"transformers, fixed length": Peer(fixed), "transformers, knapsacks": Peer(knapsacks)}


@dataclass(frozen=True, slots=True)
class Setting:
    """``texts`` for a shape, ``micro`` of them in a forward pass of transformers; ``cached``: ours has features.

    The first of ``peers`` is the baseline.
    """

    texts: Callable[[Shape], list[Text]]
    micro: int
    cached: bool
    peers: Mapping[str, Peer] = field(default_factory=lambda: AS_USED)


SETTINGS = {
    "live": Setting(lambda shape: captions(shape, shape.samples, 1), 4, cached=False),
    "cached": Setting(lambda shape: captions(shape, shape.samples, 1), 4, cached=True),
    "five captions": Setting(lambda shape: captions(shape, 2, 5), 10, cached=True),
    "instruct": Setting(lambda shape: instructions(shape, 16), 4, cached=False),
    "fixed length": Setting(lambda shape: instructions(shape, 16), 4, cached=False, peers=AS_NANOVLM),
}


def ours(
    folder: Path, shape: Shape, texts: Sequence[Text], setting: Setting
) -> tuple[Bridge, list[Batch], Callable[[], object]]:
    """The checkpoint as a bridge, the batches it reads, and a step of its engine."""
    bridge = load_llava(folder)
    unfreeze(bridge, STAGE, "stages.align", parts=["connectors."])
    bridge.prompter.__dict__["opening"] = texts[0].before  # what a chat template with a system message begins with
    engine = TorchEngine(bridge, STAGE, 1, "stages.align")
    images = pictures(shape, texts)
    batches = [batch(each, images, "vision") for each in _dealt(shape, texts, setting.micro)]
    if setting.cached:
        for each in batches:
            views = each.views["vision"]
            each.views["vision"] = [*apart(bridge.encoders["vision"].encode(views))]  # type: ignore[operator]
    terms = engine.terms(batches)

    def step() -> None:
        bridge.zero_grad()
        for each in batches:
            engine.backward(engine.losses(each, terms))

    return bridge, batches, step


def _dealt(shape: Shape, texts: Sequence[Text], micro: int) -> list[list[Text]]:
    """Forward passes of no more positions than transformers' longest has."""
    lengths = [text.words + shape.visual * (text.image is not None) for text in texts]
    longest = max(len(lengths[at : at + micro]) * max(lengths[at : at + micro]) for at in range(0, len(texts), micro))
    (hand,) = dealt([(length, 1, length) for length in lengths], 1, longest)
    return [[texts[number] for number in sorted(numbers)] for numbers in hand]


def theirs(
    folder: Path, shape: Shape, texts: Sequence[Text], setting: Setting
) -> tuple[LlavaForConditionalGeneration, dict[str, Callable[[], object]]]:
    """transformers' class, and a step of it as each peer."""
    model: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    freeze(model).train()
    model.model.multi_modal_projector.requires_grad_(True)
    images = pictures(shape, texts)
    supervised = torch.tensor(sum(len(text.answer) for text in texts))

    def step(peer: Peer, batches: Sequence[Mapping[str, Any]]) -> None:
        model.zero_grad()
        if peer.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        for each in batches:
            model(**each, num_items_in_batch=supervised, use_cache=False).loss.backward()

    peers = setting.peers.items()
    return model, {name: partial(step, each, each.rows(shape, texts, images, setting.micro)) for name, each in peers}


def difference(bridge: Bridge, model: Any) -> float:
    """Between the projector's gradients of both, relative to the length of transformers' own.

    Raises:
        AssertionError: they are not the same, so that times would compare different work.
    """
    mine = [each.grad for each in bridge.connectors.parameters()]
    reference = [each.grad for each in model.model.multi_modal_projector.parameters()]
    gap, length = 0.0, 0.0
    for own, other in zip(mine, reference, strict=True):
        assert own is not None
        gap, length = gap + float((own - other).norm() ** 2), length + float(other.norm() ** 2)
    found: float = (gap / length) ** 0.5
    assert found <= TOLERANCE, f"expected equal gradients, found them {found:.1e} apart"
    return found


def measured(shape: Shape, setting: Setting, rounds: int) -> dict[str, Any]:
    """All figures of a shape in a setting."""
    texts = setting.texts(shape)
    with TemporaryDirectory() as folder:
        write(shape, Path(folder))
        bridge, batches, step = ours(Path(folder), shape, texts, setting)
        model, others = theirs(Path(folder), shape, texts, setting)
    apart = {}
    step()
    for name, other in others.items():
        other()
        apart[name] = difference(bridge, model)
    needed = StepFlops(WeightedObjectives(bridge, STAGE.objectives)).needed
    variants = {**others, "mmbridge": step}
    times = paired(variants, rounds)
    return {
        "gradient apart from": apart,
        "executed FLOPs": {name: executed_flops(variant) for name, variant in variants.items()},
        "needed FLOPs": sum(map(needed, batches)),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": times,
        "samples per second": {name: len(texts) / each["seconds"] for name, each in times.items()},
    }


def main() -> None:
    parser = options(__doc__, 9)
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="all when left out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record = Record("training_step")
    for name in given.setting or SETTINGS:
        key = f"{given.shape}, {name}"
        record.keep(key, measured(SHAPES[given.shape], SETTINGS[name], given.rounds))
        found = record.figures[key]
        print("\n".join([name, *lines(found["times"])]))
        for variant, executed in found["executed FLOPs"].items():
            rate, times = found["samples per second"][variant], executed / found["needed FLOPs"]
            print(f"{variant:<40}{rate:>9.2f} samples/s; executes {times:.2f} times what is needed")


if __name__ == "__main__":
    main()
