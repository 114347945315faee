"""A batch on its way through a bridge: nothing runs that no objective asks for, and nothing twice."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.objectives.run import BatchRun
from tests.tiny_bridge import tiny_recipe


@pytest.fixture
def bridge(parts: Path) -> Bridge:
    return Bridge(tiny_recipe(parts))


@pytest.fixture
def batch(bridge: Bridge) -> Batch:
    picture = Medium("image", Image.new("RGB", (40, 32), "red"), "red")
    said = conversation(("user", (picture, "What is it?")), ("assistant", ("a square",)))
    return bridge.collate()([Sample("s", said)])


def calls(bridge: Bridge) -> Counter[str]:
    found = Counter[str]()
    parts: dict[str, nn.Module] = {"encoder": bridge.encoders["image"].model}  # type: ignore[dict-item]
    parts |= {"connector": bridge.connectors["image"], "llm": bridge.llm}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: found.update([name]))
    return found


def test_parts_run_when_they_are_asked_for(bridge: Bridge, batch: Batch) -> None:
    found = calls(bridge)
    with torch.no_grad():
        run = BatchRun(bridge, batch)
        assert found == {}
        assert run.features.keys() == {"image"}
        assert found == {"encoder": 1}
        assert len(run.perceived.tokens) == 1
        assert found == {"encoder": 1, "connector": 1}
        first, second = run.output, run.output
    assert first is second
    assert found == {"encoder": 1, "connector": 1, "llm": 1}


def test_it_is_what_the_bridge_makes_of_a_batch(bridge: Bridge, batch: Batch) -> None:
    with torch.no_grad():
        assert torch.equal(BatchRun(bridge, batch).output.logits, bridge(batch).logits)
