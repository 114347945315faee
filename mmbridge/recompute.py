"""What an LLM's blocks keep for the backward pass of a stage: everything where there is memory for it, else less.

In the order in which it costs time: everything; what matrices and attention make (``selective``: nothing that is
computed again is a product of matrices); of so many blocks only their inputs, as few as it takes. The least that each
keeps has a formula in ``mmbridge.memory_floor``; what is kept beside it where nothing is left out depends on how a
model's norms and activations are written, so that is measured on two short rows.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from mmbridge.data.collate import Collate
from mmbridge.data.loader import Loader
from mmbridge.data.sample import Sample
from mmbridge.device import free_memory
from mmbridge.engine import Engine
from mmbridge.errors import RecipeError, UserError
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.recomputing import NOTHING, Recompute
from mmbridge.memory_floor import memory_floor
from mmbridge.stage import StageConfig

DRAWS = 256
"""Draws of a stage that are looked at to find how long its batches will be."""
SHARE = 0.9
"""Of the memory that is free, what a step may take."""
PLENTY = 8
"""No model keeps so many times what its matrices and attention make."""
_ROWS = (32, 96)
"""Positions of the two rows that are measured."""


def recompute(engine: Engine, stage: StageConfig, batches: Loader, key: str) -> Recompute:
    """What a stage's ``recompute`` says, or, where it is left to us, the least that fits into the memory that is free.

    Every process takes what the one with the least memory has to.

    Args:
        engine: the bridge is on its device, what is frozen and what trains is settled.
        key: where the stage stands in its recipe, for errors.

    Raises:
        RecipeError: it asks for more blocks than there are below the last.
    """
    llm, asked = engine.bridge.llm, stage.recompute
    below = len(llm.layers) - 1
    if isinstance(asked, int) and asked > below:
        fix = "the last one is computed only where it is asked, and keeps little"
        raise RecipeError(f"{key}.recompute", f"expected at most the {below} blocks below the last, found {asked}", fix)
    if asked != "auto":
        return Recompute(asked if isinstance(asked, int) else 0, asked == "selective")
    room = SHARE * min(map(int, engine.ranks.texts(str(free_memory(engine.bridge.device)))))
    most = stage.budget or stage.batch * llm.max_length * max(source.together for source in stage.data.mix)
    floor = memory_floor(engine.bridge, most, most)
    if PLENTY * floor.saved + floor.logits + floor.trained <= room:
        return NOTHING
    positions, supervised = largest(batches.drawn(DRAWS), batches.collate, stage, packed=llm.packs)
    floor = memory_floor(engine.bridge, positions, supervised)
    room -= floor.logits + floor.trained
    everything = positions * kept(llm, engine.precision())
    inputs = positions * len(llm.layers) * llm.width * llm.model.dtype.itemsize
    return fitting(room, everything, floor.saved + inputs, inputs, len(llm.layers))


def fitting(room: float, everything: float, selective: float, inputs: float, blocks: int) -> Recompute:
    """The least recomputation with which a batch fits into ``room`` bytes; the most there is, if it never fits.

    Args:
        everything: bytes that all blocks keep where nothing is recomputed; ``selective`` and ``inputs`` likewise.
    """
    if everything <= room:
        return NOTHING
    for whole in range(blocks):
        again = everything / blocks if whole else 0.0  # one block at a time has all of its values for a while
        if whole * inputs / blocks + (blocks - whole) * selective / blocks + again <= room:
            return Recompute(whole, selective=True)
    return Recompute(blocks - 1, selective=True)


def largest(draws: Sequence[Sample], collate: Collate, stage: StageConfig, *, packed: bool) -> tuple[int, int]:
    """Positions of the largest batch to be expected, and supervised tokens of the one that has most of them.

    A batch of the longest of these draws; with a budget, one that is full.
    """
    extents, supervised = [], []
    for sample in draws:
        try:
            supervised.append(sum(sum(collate.prompt(each).supervised) for each in (sample, *sample.others)))
        except UserError:  # it is told when its batch is made
            continue
        extents.append(collate.extent(sample))
    positions = _most([extent[0] for extent in extents], stage.batch)
    if not (packed and stage.packing):
        positions = _most([extent[1] for extent in extents], stage.batch) * max(
            (each[2] for each in extents), default=0
        )
    if stage.budget is not None:
        positions = max([stage.budget, *(extent[0] for extent in extents)])
    return positions, min(positions, _most(supervised, stage.batch * stage.accumulate if stage.budget else stage.batch))


def kept(llm: LanguageModel, precision: AbstractContextManager[object]) -> float:
    """Bytes a position that a model's forward pass keeps for the backward pass where nothing is recomputed."""
    with precision:
        short, long = (_saved(llm, length) for length in _ROWS)
    return (long - short) / (_ROWS[1] - _ROWS[0])


def _saved(llm: LanguageModel, positions: int) -> int:
    """Bytes of the tensors that autograd saves for one row, parameters aside, each counted once."""
    own = {each.untyped_storage().data_ptr() for each in llm.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = llm.embed(torch.full((1, positions), llm.pad_id)).detach().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = llm.model(inputs_embeds=row, use_cache=False)
    del output  # until here everything it keeps is held
    return sum(found.values())


def _most(numbers: Sequence[int], many: int) -> int:
    """The sum of the ``many`` largest; of fewer, in proportion."""
    chosen = sorted(numbers, reverse=True)[:many]
    return sum(chosen) * many // max(1, len(chosen))
