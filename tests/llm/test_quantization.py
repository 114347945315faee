"""Quantised LLMs against transformers' own dequantised models, and their weights against the papers' formulas."""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from mmbridge.data.sample import Message, Sample
from mmbridge.data.world.language import describe
from mmbridge.data.world.questions import KINDS, ask
from mmbridge.data.world.scene import compose
from mmbridge.errors import RecipeError
from mmbridge.llm.config import LLMConfig, LoRAConfig, Quantization
from mmbridge.llm.flops import LanguageModelFlops
from mmbridge.llm.model import LanguageModel
from mmbridge.matrices import matrices
from mmbridge.sizes import numbers, stored
from tests.tiny import FAMILIES, tiny_llm

bitsandbytes = pytest.importorskip("bitsandbytes")

KINDS_OF_WEIGHTS: tuple[Quantization, ...] = ("int8", "nf4")
OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}
"""The same in transformers' words."""

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Family to the folder of a tiny model whose maps all have a multiple of 64 inputs."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
        if family == "opt":
            sizes = {"hidden_size": 64, "ffn_dim": 128, "word_embed_proj_dim": 64}
        elif family == "gpt2":
            sizes = {"n_embd": 64}
        elif family in ("qwen3", "gemma", "gemma2"):
            sizes |= {"head_dim": 16}
        if family not in made:
            made[family] = tiny_llm(tmp_path_factory.mktemp(family), family, **sizes)
        return made[family]

    return folder


def options(kind: str) -> Any:
    config: Any = BitsAndBytesConfig
    return config(**OPTIONS[kind])


def dequantised(folder: Path, kind: str) -> Any:
    """The model with what its quantised weights stand for in their place, as transformers makes it: plain torch."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, quantization_config=options(kind), device_map="cpu")
    plain = model.dequantize(torch.float32).eval().requires_grad_(False)
    assert {type(each) for each in plain.modules() if isinstance(each, torch.nn.Linear)} == {torch.nn.Linear}
    return plain


def maps(model: Any) -> dict[str, torch.nn.Linear]:
    return {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}


def answer(model: Any, embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of one of them with respect to the input embeddings."""
    given = embeds.clone().requires_grad_()
    with torch.enable_grad():
        logits: Tensor = model(inputs_embeds=given).logits
        logits.log_softmax(-1)[..., 3].sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    return logits.detach(), given.grad


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt", "gpt2"])  # without biases, with some, with all, Conv1D
@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
def test_it_computes_with_the_weights_that_the_quantised_ones_stand_for(
    kind: Quantization, family: str, wide: Folder
) -> None:
    """Forward and backward; and once more after a pass without gradients, before which bitsandbytes would repack."""
    llm, plain = LLMConfig(path=str(wide(family)), quantization=kind).build(), dequantised(wide(family), kind)
    before = {name: each.clone() for name, each in llm.model.state_dict().items()}
    embeds = llm.embed(torch.tensor([[5, 9, 11, 300, 301], [7, 3, 2, 260, 299]]))
    expected_logits, expected_gradient = answer(plain, embeds)
    for _ in range(2):
        logits, gradient = answer(llm.model, embeds)
        assert apart(logits, expected_logits) < 1e-5
        assert apart(gradient, expected_gradient) < 1e-5
        with torch.no_grad():
            assert apart(llm.model(inputs_embeds=embeds).logits, expected_logits) < 1e-5
    after = llm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(each, after[name]) for name, each in before.items())


def test_int8_weights_are_rounded_to_127_steps_of_their_row(wide: Folder) -> None:
    """The paper's vector-wise quantisation; scales are those of weights in float16."""
    whole, plain = LLMConfig(path=str(wide("llama"))).build(), dequantised(wide("llama"), "int8")
    for name, linear in maps(whole.model.model).items():
        weight = linear.weight.half().float().numpy()
        step = np.abs(weight).max(axis=1, keepdims=True) / 127
        steps = plain.model.get_submodule(name).weight.numpy() / step
        assert np.abs(steps - np.round(steps)).max() < 1e-3
        assert np.abs(steps - weight / step).max() < 0.501


def test_nf4_weights_are_the_papers_levels_of_their_block(wide: Folder) -> None:
    """Quantiles of a normal distribution, the nearest to a weight over the greatest of 64; scales are rounded too."""
    quantile = NormalDist().inv_cdf
    positive = [quantile(each) for each in np.linspace(0.9677083, 0.5, 9)[:-1]]
    negative = [-quantile(each) for each in np.linspace(0.9677083, 0.5, 8)[:-1]]
    levels = np.array(sorted([*negative, 0.0, *positive])) / max(positive)
    whole, plain = LLMConfig(path=str(wide("llama"))).build(), dequantised(wide("llama"), "nf4")
    for name, linear in maps(whole.model.model).items():
        blocks = linear.weight.numpy().reshape(-1, 64)
        found = plain.model.get_submodule(name).weight.numpy().reshape(-1, 64)
        greatest, scale = (np.abs(each).max(axis=1, keepdims=True) for each in (blocks, found))
        nearest = levels[np.abs((blocks / greatest)[..., None] - levels).argmin(-1)]
        assert np.abs(found / scale - nearest).max() < 1e-5
        assert np.abs(scale / greatest - 1).max() < 0.02


def loss(llm: LanguageModel) -> float:
    """Of the shipped LLM's answers to questions about scenes that are described to it."""
    random, kinds, losses = np.random.default_rng(7), [*KINDS], []
    for number in range(24):
        scene = compose(random, novel=None)
        question = ask(scene, random, kinds[number % len(kinds)])
        talk = (
            Message("user", (f"{describe(scene, random)} {question.question}",)),
            Message("assistant", (question.answers[0],)),
        )
        prompt = llm.prompter.training(Sample(str(number), talk))
        with torch.no_grad():
            logits = llm.model(torch.tensor([prompt.ids])).logits[0, :-1].float()
        said = torch.tensor(prompt.supervised)[1:]
        losses.append(torch.nn.functional.cross_entropy(logits[said], torch.tensor(prompt.ids)[1:][said]))
    return float(torch.stack(losses).mean())


def test_the_shipped_llm_loses_little() -> None:
    """Weights are off by at most 1/254 of the greatest in their row (int8), 0.15 of it in their block (nf4)."""
    whole, eight, four = (
        loss(LLMConfig(path="world:llm", quantization=kind).build()) for kind in (None, "int8", "nf4")
    )
    assert whole < 0.06
    assert eight == pytest.approx(whole, abs=0.005)
    assert four == pytest.approx(whole, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
def test_every_family_has_its_maps_quantised_and_its_head_whole(kind: Quantization, family: str, wide: Folder) -> None:
    made, whole = (
        LLMConfig(path=str(wide(family)), quantization=kind).build(),
        LLMConfig(path=str(wide(family))).build(),
    )
    quantised = bitsandbytes.nn.Linear8bitLt if kind == "int8" else bitsandbytes.nn.Linear4bit
    assert {type(each) for each in maps(made.layers).values()} == {quantised}
    assert type(made.head) is torch.nn.Linear
    assert made.embed(torch.tensor([1])).dtype == torch.float32
    assert [*matrices(made.model)] == [*matrices(whole.model)]
    assert sum(map(numbers, made.parameters())) == sum(map(numbers, whole.parameters()))
    assert vars(LanguageModelFlops(made)) == vars(LanguageModelFlops(whole))


def test_it_takes_the_memory_it_should() -> None:
    """Bits a weight: 8 and a scale of 32 a row; 4 and one of 8 a block of 64, 32 for 256 of those, and the tables."""
    sizes = {kind: stored(LLMConfig(path="world:llm", quantization=kind).build()) for kind in (None, *KINDS_OF_WEIGHTS)}
    made = maps(LLMConfig(path="world:llm").build().layers).values()
    weights, rows = sum(each.weight.numel() for each in made), sum(each.out_features for each in made)
    assert sizes[None] - sizes["int8"] == 3 * weights - 4 * rows - len(made)  # a byte of bitsandbytes' own each
    per_map = (sizes[None] - sizes["nf4"] - (4 - 1 / 2 - 1 / 64 - 4 / 64 / 256) * weights) / len(made)
    assert -2200 < per_map < 0  # two tables of 16 and 256 numbers, an offset, and a few words


def test_lora_over_it_trains_its_adapters(wide: Folder) -> None:
    for kind in KINDS_OF_WEIGHTS:
        config = LLMConfig(path=str(wide("llama")), quantization=kind, lora=LoRAConfig(rank=2, alpha=4))
        llm = config.build()
        names = {name for name, each in llm.named_parameters() if each.requires_grad}
        assert names
        assert all(".lora_" in name for name in names)
        embeds = llm.embed(torch.tensor([[5, 9, 11]]))
        answer(llm.model, embeds)
        gradients = {name: each.grad for name, each in llm.named_parameters() if each.requires_grad}
        reached = {name for name, each in gradients.items() if each is not None and each.any()}
        assert reached == {name for name in names if "lora_B" in name}  # A's is zero as long as B is


def test_blocks_that_would_cross_rows_are_refused(llm_folder: Folder) -> None:
    line = (
        r"^llm\.quantization: NF4 has blocks of 64: .* found model\.layers\.0\.self_attn\.q_proj of 32; set it to int8"
    )
    with pytest.raises(RecipeError, match=line):
        LLMConfig(path=str(llm_folder("llama")), quantization="nf4").build()


def test_a_package_that_is_not_there_or_does_not_run_is_one_line(wide: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LLMConfig(path=str(wide("llama")), quantization="nf4")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        RecipeError, match=r"^llm\.quantization: expected the package bitsandbytes .* 'mmbridge\[quant\]'"
    ):
        config.build()
    broken: Any = ModuleType("bitsandbytes")
    broken.__version__, broken.nn = "0.0", ModuleType("nn")
    monkeypatch.setitem(sys.modules, "bitsandbytes", broken)
    with pytest.raises(
        RecipeError, match=r"^llm\.quantization: bitsandbytes 0\.0 does not run here \(.*; set it to null$"
    ):
        config.build()


def test_a_checkpoint_that_is_quantised_already_is_not_quantised_again(wide: Folder, tmp_path: Path) -> None:
    """Left as it is, it is read as it is, and fit for training as well."""
    auto: Any = AutoModelForCausalLM
    auto.from_pretrained(wide("llama"), quantization_config=options("nf4"), device_map="cpu").save_pretrained(tmp_path)
    for file in wide("llama").glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((wide("llama") / "chat_template.jinja").read_bytes())
    with pytest.raises(
        RecipeError, match=r"^llm\.quantization: expected weights to quantise, found .* so already; set"
    ):
        LLMConfig(path=str(tmp_path), quantization="int8").build()
    llm, embeds = LLMConfig(path=str(tmp_path)).build(), torch.randn(1, 4, 64)
    with torch.no_grad():
        llm.model(inputs_embeds=embeds)
    logits, gradient = answer(llm.model, embeds)
    expected_logits, expected_gradient = answer(dequantised(wide("llama"), "nf4"), embeds)
    assert apart(logits, expected_logits) < 1e-5
    assert apart(gradient, expected_gradient) < 1e-5
