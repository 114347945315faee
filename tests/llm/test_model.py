"""The language model as a module: frozen, lean in memory, its context in view of hooks, loaded from anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, T5Config, T5ForConditionalGeneration

from mmbridge.context import ForwardContext
from mmbridge.errors import RecipeError
from mmbridge.llm.config import GenerationOptions, LLMConfig, LoRAConfig
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.llm.splice import splice
from tests.tiny import FAMILIES, tiny_clip, tiny_llava, tiny_llm

Model = Callable[..., LanguageModel]
SHORT = GenerationOptions(max_new_tokens=3)


def batch(llm: LanguageModel, tokens: Tensor, said: int = 3, side: Any = "right") -> ForwardContext:
    """Two rows: four perceptual tokens and text, and text alone, with ``said`` supervised tokens at the end of each."""
    rows = ([10**6, *range(5, 15)], list(range(20, 28)))
    prompts = [
        Prompt(
            str(number),
            tuple(ids),
            tuple(len(ids) - place <= said for place in range(len(ids))),
            (Placeholder(0, "image"),) if number == 0 else (),
            "",
        )
        for number, ids in enumerate(rows)
    ]
    return splice(llm.embed, prompts, [[tokens], []], side=side, pad_id=llm.pad_id, max_length=llm.max_length)


def head_of(model: LanguageModel) -> nn.Module:
    inner: Any = model.model
    head: nn.Module = inner.get_output_embeddings()
    return head


def saved_bytes(run: Callable[[], Tensor], parameters: set[int]) -> tuple[int, Tensor]:
    """Bytes autograd keeps for the backward pass, each storage once, parameters left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run()
    return sum(kept.values()), loss


@pytest.mark.parametrize("family", FAMILIES)
def test_training_keeps_no_more_than_a_plain_forward_and_moves_nothing(family: str, llm: Model) -> None:
    model = llm(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    tokens = torch.randn(4, model.width, requires_grad=True)
    context = batch(model, tokens)

    def ours() -> Tensor:
        out = model(context)
        return cross_entropy(out.logits, out.targets)

    def plain() -> Tensor:
        labels = context.ids.masked_fill(~context.supervised, -100)
        inner: Any = model.model
        loss: Tensor = inner(inputs_embeds=context.embeds, attention_mask=context.mask.long(), labels=labels).loss
        return loss

    (kept, loss), (kept_plain, loss_plain) = saved_bytes(ours, parameters), saved_bytes(plain, parameters)
    torch.testing.assert_close(loss, loss_plain)
    assert kept < kept_plain  # logits at 6 positions, not at 28; no padding mask
    torch.autograd.backward(loss)
    assert tokens.grad is not None
    assert tokens.grad.norm() > 0
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_head_computes_supervised_rows_only(llm: Model) -> None:
    model, seen = llm(), list[int]()
    head = head_of(model)
    handle = head.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[-2]))
    out = model(batch(model, torch.randn(4, model.width), said=2))
    nothing = model(batch(model, torch.randn(4, model.width), said=0))
    handle.remove()
    assert seen == [4, 0]
    assert out.logits.shape == (4, model.model.config.vocab_size)
    assert nothing.logits.shape == (0, model.model.config.vocab_size)
    assert not head._forward_pre_hooks


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_on_blocks_see_the_context(family: str, llm: Model) -> None:
    model, seen = llm(family), list[ForwardContext | None]()
    handles = [layer.register_forward_hook(lambda *_: seen.append(model.context)) for layer in model.layers]
    context = batch(model, torch.randn(4, model.width), side="left")
    model(context)
    assert [each is context for each in seen] == [True, True]
    seen.clear()
    model.generate(context, SHORT)
    assert [each is context for each in seen] == [True] * 2 * 3
    assert model.context is None
    for handle in handles:
        handle.remove()


def test_a_failure_inside_leaves_no_context_and_no_hook(llm: Model) -> None:
    model = llm()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    handle = model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        model(batch(model, torch.randn(4, model.width)))
    handle.remove()
    assert model.context is None
    assert not head_of(model)._forward_pre_hooks


def test_it_stays_in_eval_mode_whatever_the_parent_does(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path, "gpt2"))).build()  # GPT-2 has dropout of 0.1
    parent = nn.ModuleDict({"llm": model}).train()
    assert not any(module.training for module in model.model.modules())
    context = batch(model, torch.randn(4, model.width))
    assert torch.equal(model(context).logits, model(context).logits)
    assert parent.training


def test_lora_trains_named_adapters_and_nothing_else(tmp_path: Path) -> None:
    folder = str(tiny_llm(tmp_path))
    lora = LoRAConfig(rank=2, alpha=4, dropout=0.5, targets=("q_proj", "v_proj"))
    plain, model = LLMConfig(path=folder).build(), LLMConfig(path=folder, lora=lora, dtype="bfloat16").build()
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    expected = {
        f"model.model.layers.{layer}.self_attn.{name}.lora_{part}.default.weight"
        for layer in range(2)
        for name in ("q_proj", "v_proj")
        for part in "AB"
    }
    assert set(trainable) == expected
    assert all(value.dtype == torch.float32 for value in trainable.values())
    tokens = torch.randn(4, model.width)
    assert not any(module.training for module in model.modules())
    model.float().train()
    assert {name for name, module in model.model.named_modules() if module.training} == {
        f"model.layers.{layer}.self_attn.{name}.lora_dropout.default"
        for layer in range(2)
        for name in ("q_proj", "v_proj")
    }
    model.eval()
    before = plain(batch(plain, tokens)).logits
    torch.testing.assert_close(model(batch(model, tokens)).logits, before, atol=0.05, rtol=0.05)  # weights were bf16
    out = model(batch(model, tokens))
    torch.autograd.backward(cross_entropy(out.logits, out.targets))
    assert all(value.grad is not None for value in trainable.values())
    assert not any(value.grad is not None for name, value in model.named_parameters() if name not in trainable)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_finds_the_linear_layers_of_every_family(family: str, tmp_path: Path) -> None:
    lora = LoRAConfig(rank=2, alpha=4)
    model = LLMConfig(path=str(tiny_llm(tmp_path, family)), lora=lora).build()
    adapted = {name.split(".lora_")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert len(adapted) >= 2 * 4
    assert not any(parameter.requires_grad for parameter in head_of(model).parameters())
    out = model(batch(model, torch.randn(4, model.width)))
    torch.autograd.backward(cross_entropy(out.logits, out.targets))


def test_a_lora_target_that_is_not_there(tmp_path: Path) -> None:
    config = LLMConfig(path=str(tiny_llm(tmp_path)), lora=LoRAConfig(rank=2, alpha=4, targets=("query",)))
    with pytest.raises(RecipeError, match=r"^llm\.lora\.targets: expected names of linear layers"):
        config.build()


def test_dtype_device_and_limits(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path)), dtype="bfloat16", max_length=4096).build()
    assert model.max_length == 256  # the model's own positions
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    out = model(batch(model, torch.randn(4, model.width)))
    assert out.logits.dtype == torch.bfloat16
    moved = model.to("meta")
    assert moved.embed(torch.tensor([[1]])).device.type == "meta"


@pytest.mark.parametrize(
    ("vision", "family", "renamed"),
    [
        ("clip", "llama", False),
        ("clip", "llama", True),
        ("clip", "gemma2", False),
        ("clip", "phi", False),
        ("siglip", "qwen2", False),
        ("siglip", "qwen2", True),
        ("siglip", "mistral", False),
    ],
)
def test_a_llava_folder_gives_its_language_model(vision: Any, family: str, renamed: bool, tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path, vision, family)
    auto: Any = AutoModelForImageTextToText
    whole = auto.from_pretrained(folder).eval()
    if renamed:  # transformers 5 writes the names of 4, and reads its own as well
        inner = {"language_model.model": "model.language_model", "language_model.lm_head": "lm_head"}
        weights = load_file(folder / "model.safetensors")
        for old, new in inner.items():
            weights = {name.replace(old, new): value for name, value in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = LLMConfig(path=str(folder)).build()
    ids = torch.randint(0, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    prompts = [Prompt("a", tuple(row), (False,) + (True,) * 8, (), "") for row in ids.tolist()]
    context = splice(model.embed, prompts, [[], []], side="right", pad_id=0, max_length=20)
    with torch.no_grad():
        reference = whole(input_ids=ids).logits[:, :-1].flatten(0, 1)
        torch.testing.assert_close(model(context).logits, reference, atol=1e-5, rtol=1e-5)
    assert not any("vision" in name for name, _ in model.named_parameters())
    assert model.prompter.stop_id == model.tokenizer.eos_token_id


def test_an_older_processor_s_template_is_found(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path)
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    expected = LLMConfig(path=str(folder)).build().prompter.chat_template
    template.unlink()
    assert LLMConfig(path=str(folder)).build().prompter.chat_template == expected


def refused(folder: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        LLMConfig(path=str(folder)).build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_are_no_causal_lm(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "transformers cannot read it" in refused(tmp_path / "empty")
    assert "expected a causal language model, found clip" in refused(tiny_clip(tmp_path / "clip"))
    T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    assert "expected a decoder-only model, found t5" in refused(tmp_path / "t5")


def test_checkpoints_that_are_incomplete_or_pickled(tmp_path: Path) -> None:
    folder = tiny_llm(tmp_path / "lacks")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 missing, first model.layers.1.mlp.up_proj.weight" in refused(folder)
    folder = tiny_llm(tmp_path / "truncated")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert "transformers cannot read it" in refused(folder)
    folder = tiny_llm(tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "safetensors" in refused(folder)


def test_a_base_model_without_template_says_what_to_do(tmp_path: Path) -> None:
    folder = tiny_llm(tmp_path, "opt", tokenizer={"template": None})
    assert "name a chat template that fits with llm.template" in refused(folder)
    assert LLMConfig(path=str(folder), template="caption").build().prompter.stop_id is not None


def test_a_pad_token_without_an_embedding_is_not_looked_up(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path, vocab_size=480, pad_token_id=None))).build()
    assert model.tokenizer.pad_token_id == 480  # one behind the last row
    assert model.pad_id == model.tokenizer.eos_token_id
