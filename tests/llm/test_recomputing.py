"""Blocks that recompute, against blocks that keep everything: the same gradients to the bit, from less memory."""

import ctypes
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.llm import packing
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.recomputing import NOTHING, Recompute, recomputed
from mmbridge.torch_engine import TorchEngine
from tests.tiny import tiny_llm
from tests.tiny_step import QUESTION, batch_of, image, sample, started

HOW = [Recompute(selective=True), Recompute(1), Recompute(1, selective=True), Recompute(2), Recompute(2, True)]
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.3}


def gradient(engine: TorchEngine, batch: Batch, what: Recompute) -> Tensor:
    engine.bridge.llm.recompute = what
    torch.manual_seed(5)  # of LoRA's dropout
    engine.backward(engine.losses(batch, engine.terms([batch])))
    found = [each.grad.flatten() for each in engine.bridge.parameters() if each.grad is not None]
    engine.drop()
    return torch.cat(found)


def mixed(engine: TorchEngine) -> Batch:
    """Two texts about one image, one about another, and text alone."""
    one = image()
    asked = [sample(one, QUESTION), sample(one, QUESTION, answer="Nothing."), sample(image(), QUESTION * 2)]
    return batch_of(engine.bridge, *asked, sample(QUESTION, answer="two"))


@pytest.fixture(autouse=True)
def _calls_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.CALL, "cpu", 0)


@pytest.mark.parametrize("what", HOW)
@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt2"])
def test_gradients_are_those_of_blocks_that_keep_everything(family: str, what: Recompute, tmp_path: Path) -> None:
    engine = started(tmp_path, family, layers=4)
    batch = mixed(engine)
    expected = gradient(engine, batch, NOTHING)
    assert torch.equal(gradient(engine, batch, what), expected)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("what", HOW)
@pytest.mark.parametrize("packed", [True, False])
def test_under_lora_with_dropout(
    what: Recompute, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was dropped in the forward pass is dropped again."""
    monkeypatch.setitem(packing.CALL, "cpu", 0)
    engine = started(tmp_path, train=("connectors.*", "llm.*lora*"), lora=LORA, layers=4)
    if not packed:
        engine.bridge.llm.packing = None
    batch = mixed(engine)
    with torch.no_grad():  # adapters begin at zero: their gradients, and what flows through them, would be too
        for name, each in engine.bridge.llm.named_parameters():
            if "lora_B" in name:
                each.normal_()
    expected = gradient(engine, batch, NOTHING)
    assert not torch.equal(expected, expected.roll(1))
    assert torch.equal(gradient(engine, batch, what), expected)


def test_under_autocast(tmp_path: Path) -> None:
    engine = started(tmp_path, layers=4, precision="bfloat16")
    batch = mixed(engine)
    expected = gradient(engine, batch, NOTHING)
    for what in HOW:
        assert torch.equal(gradient(engine, batch, what), expected)


_NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def in_use() -> int:
    """Bytes that the C library has given out and not got back."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Mallinfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_less_is_kept(tmp_path: Path) -> None:
    """Memory in use after a forward pass of 8 blocks over 1,024 positions, against the formulas of what is kept."""
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 8}
    llm = LLMConfig(path=str(tiny_llm(tmp_path, **sizes, max_position_embeddings=1024))).build()

    def kept(what: Recompute) -> float:
        """Numbers a position and block."""
        row = llm.embed(torch.zeros(1, 1024, dtype=torch.int64)).requires_grad_()
        before = in_use()
        with recomputed([*llm.layers], what, nullcontext):
            output = llm.model.model(inputs_embeds=row, use_cache=False).last_hidden_state
        assert output.requires_grad
        return (in_use() - before) / (4 * 1024 * 8)

    kept(NOTHING)  # whatever is made once
    made = 2 * 128 + 2 * 128 + 2 * 64 + 2 * 352
    assert 128 <= kept(Recompute(8)) <= 1.5 * 128
    assert made <= kept(Recompute(selective=True)) <= 1.1 * (made + 128)
    assert kept(NOTHING) >= 1.1 * kept(Recompute(selective=True))


def test_hooks_read_the_batch_in_work_when_blocks_run_again(tmp_path: Path) -> None:
    engine = started(tmp_path, layers=4)
    seen: list[bool] = []
    inner = engine.bridge.llm.layers[0].get_submodule("mlp")
    inner.register_forward_pre_hook(lambda *_: seen.append(engine.bridge.llm.context is not None))
    gradient(engine, mixed(engine), Recompute(1))
    assert seen == [True, True]
    assert engine.bridge.llm.context is None


def test_blocks_are_left_as_they_were(tmp_path: Path) -> None:
    engine = started(tmp_path, layers=4)
    gradient(engine, mixed(engine), Recompute(2, selective=True))
    assert all("forward" not in vars(layer) for layer in engine.bridge.llm.layers)
