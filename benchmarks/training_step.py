"""A training step of the connector, beside transformers' LLaVA class: ``python benchmarks/training_step.py``.

Same weights, images, token ids, frozen parts and supervised tokens; forward and backward, without the optimiser, in
float32. transformers' class runs as its users run it, with gradient checkpointing, and without. Before anything is
timed, the projector's gradient must be the same. Writes ``results/training_step.json``: seconds and ratios, the FLOPs
each executes as torch counts them, and those the step needs.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from paired import lines, paired
from random_llava import SHAPES, WORDS, Shape, write
from record import Record
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.encoders.base import Views
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import NeededFlops
from mmbridge.frozen import freeze
from mmbridge.llava import load_llava
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.memory_floor import memory_floor
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


def ours(folder: Path, shape: Shape, ids: Tensor, images: Tensor) -> tuple[Bridge, Batch, Callable[[], object]]:
    """The checkpoint as a bridge, the batch it reads, and a step of its engine."""
    bridge = load_llava(folder)
    unfreeze(bridge, STAGE, "stages.align", parts=["connectors."])
    supervised = (False,) * (ids.shape[1] - shape.answer) + (True,) * shape.answer
    placeholders = (Placeholder(shape.before, "image"),)
    prompts = tuple(
        Prompt(str(number), tuple(row), supervised, placeholders, "") for number, row in enumerate(ids.tolist())
    )
    batch = Batch(prompts, {"vision": [Views(image[None]) for image in images]}, ())
    engine = TorchEngine(bridge, STAGE, 1, "stages.align")

    def step() -> None:
        bridge.zero_grad()
        engine.backward(engine.losses(batch, engine.terms([batch])))

    return bridge, batch, step


def theirs(
    folder: Path, shape: Shape, ids: Tensor, images: Tensor
) -> tuple[LlavaForConditionalGeneration, Callable[[bool], object]]:
    """transformers' class, and a step of it with checkpointing or without."""
    model: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    freeze(model).train()
    model.model.multi_modal_projector.requires_grad_(True)
    visual = torch.full((len(ids), shape.visual), WORDS.index("<image>"))
    ids = torch.cat([ids[:, : shape.before], visual, ids[:, shape.before + 1 :]], dim=1)
    labels = ids.clone()
    labels[:, : -shape.answer] = -100

    def step(checkpointing: bool) -> None:
        model.zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        model(input_ids=ids, pixel_values=images, labels=labels, use_cache=False).loss.backward()

    return model, step


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


def measured(shape: Shape, rounds: int) -> dict[str, Any]:
    """All figures of a shape."""
    draw = torch.Generator().manual_seed(0)
    length = shape.before + 1 + shape.after + shape.answer
    ids = torch.randint(len(WORDS), shape.vocabulary, (shape.samples, length), generator=draw)
    images = torch.randn(shape.samples, 3, shape.image, shape.image, generator=draw)
    with TemporaryDirectory() as folder:
        write(shape, Path(folder))
        bridge, batch, step = ours(Path(folder), shape, ids, images)
        model, other = theirs(Path(folder), shape, ids, images)
    variants: Mapping[str, Callable[[], object]] = {
        "transformers, with checkpointing": lambda: other(True),
        "transformers": lambda: other(False),
        "mmbridge": step,
    }
    apart = {}
    step()
    for name in list(variants)[:2]:
        variants[name]()
        apart[name] = difference(bridge, model)
    floor = memory_floor(bridge, shape.samples * (length - 1 + shape.visual), shape.samples * shape.answer)
    return {
        "gradient apart from": apart,
        "executed FLOPs": {name: executed_flops(variant) for name, variant in variants.items()},
        "needed FLOPs": NeededFlops(bridge)(batch),
        "memory floor, bytes": floor.total,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": paired(variants, rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record = Record("training_step")
    record.keep(given.shape, measured(SHAPES[given.shape], given.rounds))
    found = record.figures[given.shape]
    print("\n".join(lines(found["times"])))
    for name, executed in found["executed FLOPs"].items():
        print(f"{name:<40}executes {executed / found['needed FLOPs']:.2f} times what is needed")


if __name__ == "__main__":
    main()
