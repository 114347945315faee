"""Wanda's masks of every way of reading, against loops over transformers' own model."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmbridge.alignment.weights.activated import readings
from mmbridge.alignment.weights.masks import wanda
from mmbridge.alignment.weights.wanda import input_norms, permuted
from mmbridge.bridge import Bridge
from mmbridge.data.formats import open_source
from mmbridge.data.sample import Sample
from mmbridge.data.sources import Source
from mmbridge.errors import UserError
from mmbridge.llm.weight_mask import masked
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe

SAMPLES = 6
BLOCKS = {"llama": "model.layers", "qwen2": "model.layers", "opt": "model.decoder.layers", "gpt2": "transformer.h"}
Masks = dict[str, NDArray[np.bool_]]


def made(parts: Path, family: str, **llm: Any) -> Bridge:
    folder = parts / family
    if not folder.exists():
        tiny_llm(folder, family)
    return Bridge(tiny_recipe(parts, llm={"path": str(folder)} | llm))


def source_of(parts: Path) -> Source:
    return open_source(parts / "data", task="caption")


def reference(model: Any, blocks: str, rows: Sequence[Tensor], sparsity: float, sequential: bool) -> Masks:
    """Wanda by loops: every row alone through transformers' model, once more for every block, weights set to zero as
    they are dropped; every output's weights ranked one by one."""
    layers = {
        f"{number}.{name}": module
        for number, block in enumerate(model.get_submodule(blocks))
        for name, module in block.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
    }
    whole = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    found: Masks = {}
    for number in range(len(model.get_submodule(blocks))):
        here = [name for name in layers if name.startswith(f"{number}.")]
        squares: dict[str, Any] = dict.fromkeys(here, 0.0)
        for row in rows:
            read = _read(model, {name: layers[name] for name in here}, row)
            for name in here:
                for token in read[name]:
                    squares[name] = squares[name] + token.astype(np.float64) ** 2
        for name in here:
            turned = type(layers[name]).__name__ == "Conv1D"
            weight = layers[name].weight.detach().numpy()
            weight = weight.T if turned else weight
            kept = np.ones(weight.shape, dtype=np.bool_)
            for output in range(weight.shape[0]):
                score = [abs(float(weight[output, i])) * squares[name][i] ** 0.5 for i in range(weight.shape[1])]
                order = sorted(range(weight.shape[1]), key=score.__getitem__)
                kept[output, order[: int(sparsity * weight.shape[1])]] = False
            found[name] = kept
            if sequential:
                with torch.no_grad():
                    stays = torch.from_numpy(kept.T if turned else kept)
                    layers[name].weight.mul_(stays)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(whole[name])
    return found


def _read(model: Any, layers: dict[str, nn.Module], row: Tensor) -> dict[str, NDArray[np.float32]]:
    """(T, in), what each layer reads of one row of embeddings (T, D)."""
    read: dict[str, NDArray[np.float32]] = {}

    def keep(name: str) -> Any:
        return lambda _, args: read.update({name: args[0].detach().reshape(-1, args[0].shape[-1]).numpy()})

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    with torch.no_grad():
        model(inputs_embeds=row[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return read


def rows_of(bridge: Bridge, samples: Sequence[Sample], group: str) -> Iterator[Tensor]:
    """What a group's rows should be, put together here from single samples."""
    words = bridge.llm.model.get_input_embeddings()
    for sample in samples:
        batch = bridge.collate()([sample])
        (prompt,), ((tokens,),) = batch.prompts, bridge.perceive(batch).tokens
        (place,) = (each.position for each in prompt.placeholders)
        before, after = (
            words(torch.tensor(ids, dtype=torch.long)) for ids in (prompt.ids[:place], prompt.ids[place + 1 :])
        )
        parts = {"image": [tokens], "text": [before, after], "both": [before, tokens, after]}[group]
        yield torch.cat(parts).detach()


@pytest.mark.proof("iou", against="Wanda's masks in NumPy's loops over what transformers' layers read, row by row")
@pytest.mark.parametrize("family", BLOCKS)
@pytest.mark.parametrize("sequential", [True, False], ids=["sequential", "dense"])
def test_masks_are_those_of_loops(parts: Path, family: str, sequential: bool) -> None:
    """Captions of unequal length share batches, so that padding would be seen if it counted."""
    bridge, source = made(parts, family), source_of(parts)
    sparsity = 0.3
    samples = [source[int(index)] for index in np.linspace(0, len(source) - 1, SAMPLES).round()]
    found = readings(bridge, source, SAMPLES, batch_size=4)
    assert list(found) == ["image", "text", "both"]
    assert not all(bool(context.mask.all()) for context in found["text"])
    whole = {name: each.clone() for name, each in bridge.llm.model.state_dict().items()}
    for group, contexts in found.items():
        norms = input_norms(bridge.llm, contexts, sparsity if sequential else None)
        mask = wanda(bridge.llm, norms, sparsity)
        rows = list(rows_of(bridge, samples, group))
        expected = reference(bridge.llm.model, BLOCKS[family], rows, sparsity, sequential)
        assert mask.bits.keys() == expected.keys()
        for name, kept in expected.items():
            np.testing.assert_array_equal(mask.kept(name).numpy(), kept, err_msg=f"{group} {name}")
    assert all(torch.equal(whole[name], each) for name, each in bridge.llm.model.state_dict().items())


def test_ways_of_reading_differ(parts: Path) -> None:
    """Else the proof above could compare one mask with itself."""
    bridge, source = made(parts, "llama"), source_of(parts)
    masks = [
        wanda(bridge.llm, input_norms(bridge.llm, contexts), 0.5).bits
        for contexts in readings(bridge, source, SAMPLES, 4).values()
    ]
    for name in masks[0]:
        assert not np.array_equal(masks[0][name], masks[1][name])
        assert not np.array_equal(masks[1][name], masks[2][name])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_nothing_dropped_is_the_whole_llm(parts: Path, family: str) -> None:
    """Blocks run one by one on what they were called with make the same states as the model does."""
    bridge = made(parts, family)
    contexts = readings(bridge, source_of(parts), SAMPLES, 4)["both"]
    dense, sequential = input_norms(bridge.llm, contexts), input_norms(bridge.llm, contexts, 0.0)
    for name, norms in dense.items():
        torch.testing.assert_close(sequential[name], norms)


def test_batch_size_is_of_no_consequence(parts: Path) -> None:
    bridge, source = made(parts, "llama"), source_of(parts)
    one, many = (input_norms(bridge.llm, readings(bridge, source, SAMPLES, size)["text"], 0.5) for size in (1, SAMPLES))
    for name, norms in one.items():
        torch.testing.assert_close(many[name], norms)


def test_lora_is_no_layer_of_the_llm(parts: Path) -> None:
    bare, adapted = made(parts, "llama"), made(parts, "llama", lora={"rank": 2, "alpha": 2})
    source = source_of(parts)
    first, second = (input_norms(each.llm, readings(each, source, 4, 4)["text"]) for each in (bare, adapted))
    assert first.keys() == second.keys()
    for name, norms in first.items():
        torch.testing.assert_close(second[name], norms)


def test_pruning_again_drops_the_same(parts: Path) -> None:
    """Weights that are zero score zero, so the same share of them goes first."""
    bridge, source = made(parts, "llama"), source_of(parts)
    contexts = readings(bridge, source, SAMPLES, 4)["both"]
    first = wanda(bridge.llm, input_norms(bridge.llm, contexts, 0.5), 0.5)
    with masked(bridge.llm, first):
        again = wanda(bridge.llm, input_norms(bridge.llm, contexts, 0.5), 0.5)
    for name, bits in first.bits.items():
        np.testing.assert_array_equal(again.bits[name], bits)


def test_permuted_norms_are_the_same_norms() -> None:
    norms = {"0.a": torch.arange(50.0), "1.a": torch.arange(50.0)}
    dealt = permuted(norms)
    assert dealt["0.a"].tolist() != norms["0.a"].tolist()
    assert sorted(dealt["0.a"].tolist()) == norms["0.a"].tolist()


def test_a_sparsity_is_a_share(parts: Path) -> None:
    bridge, source = made(parts, "llama"), source_of(parts)
    contexts = readings(bridge, source, 2, 2)["text"]
    with pytest.raises(UserError, match=r"^sparsity: expected a share of weights to drop, from 0 to below 1, found 1$"):
        input_norms(bridge.llm, contexts, 1.0)
