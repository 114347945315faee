"""The memory floor against what autograd keeps for the backward pass, and against the formula for Llama."""

from pathlib import Path

import torch
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.frozen import freeze
from mmbridge.memory_floor import memory_floor
from tests.tiny_step import FEED, GROUPS, HEADS, LAYERS, QUESTION, WIDTH, batch_of, image, sample, started


def saved_bytes(bridge: Bridge, count: int) -> int:
    """What a forward pass over ``count`` samples keeps: tensors saved, once each, that are no parameters."""
    own = {each.untyped_storage().data_ptr() for each in bridge.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = bridge(batch_of(bridge, *[sample(image(), QUESTION) for _ in range(count)]))
    assert output.logits.requires_grad
    return sum(kept.values())


def test_autograd_keeps_no_less(tmp_path: Path) -> None:
    """Less than half as much again: transformers keeps norms' inputs and activations besides."""
    bridge = started(tmp_path).bridge
    positions = bridge.spliced(batch_of(bridge, sample(image(), QUESTION)), "right").ids.shape[1]
    more = saved_bytes(bridge, 9) - saved_bytes(bridge, 1)
    floor = memory_floor(bridge, 8 * positions, 0).saved
    assert floor <= more <= 1.5 * floor


def test_the_formula_for_llama(tmp_path: Path) -> None:
    bridge = started(tmp_path).bridge
    floor = memory_floor(bridge, 100, 7)
    assert floor.saved == 4 * 100 * LAYERS * (2 * WIDTH + 2 * HEADS + 2 * GROUPS + 2 * FEED)
    assert floor.logits == 7 * bridge.llm.model.config.vocab_size * 4
    trained = 2 * (WIDTH * WIDTH + WIDTH)
    assert floor.trained + 4 * trained == 16 * trained
    assert floor.total == sum((floor.weights, floor.saved, floor.logits, floor.trained))
    bridge.llm.bfloat16()
    short = memory_floor(freeze(bridge), 100, 7)
    assert (short.saved * 2, short.logits * 4, short.trained) == (floor.saved, floor.logits * 6, 0)
    assert 0 < short.weights < floor.weights
