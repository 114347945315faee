"""A bridge written as a LLaVA folder: transformers loads it and computes what the bridge computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from mmbridge.bridge import Bridge
from mmbridge.errors import RecipeError, UserError
from mmbridge.llava import export_llava, load_llava
from mmbridge.recipe import Recipe
from tests.encoders.models import MAKERS
from tests.llava.checkpoints import SIZES, Reference
from tests.llava.parity import largest_gap, same_ids, same_texts
from tests.tiny import CHATML, tiny_clip, tiny_llava, tiny_llm, tiny_siglip

MLP = {"kind": "mlp", "depth": 2}


def bridge(
    folder: Path,
    *,
    tower: str = "clip",
    family: str = "llama",
    tokenizer: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    connector: dict[str, Any] | None = None,
    llm: dict[str, Any] | None = None,
    **model: Any,
) -> Bridge:
    """A bridge of tiny random parts made below ``folder``; the sections of its recipe can be added to."""
    makers = {"clip": tiny_clip, "siglip": tiny_siglip} | MAKERS
    kind = (
        tower.partition("_")[0] if tower.startswith("timm") else "open_clip" if "open_clip" in tower else "transformers"
    )
    makers[tower](folder / "tower")
    tiny_llm(folder / "llm", family, tokenizer=tokenizer, **model)
    recipe = {
        "name": "tiny",
        "about": "a bridge to export",
        "encoders": {"image": {"kind": kind, "path": str(folder / "tower"), "layer": -2} | (vision or {})},
        "connectors": {"image": {"encoders": ["image"], "projector": MLP} | (connector or {})},
        "llm": {"path": str(folder / "llm"), "max_length": 256} | (llm or {}),
        "stages": [],
    }
    built = Bridge(Recipe.model_validate(recipe))
    draw = torch.Generator().manual_seed(1)
    for tensor in built.connectors.parameters():
        tensor.data = torch.randn(tensor.shape, generator=draw) * 0.2
    return built


def phi3(folder: Path) -> Path:
    """A tiny Phi-3 (Phi-4-mini is one), which the shared builders lack, with a Llama tokenizer."""
    config: Any = AutoConfig.from_pretrained(tiny_llm(folder))
    shared = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    kept = {name: getattr(config, name) for name in (*shared, *ids)}
    phi = AutoConfig.for_model("phi3", **kept, intermediate_size=48, max_position_embeddings=256, initializer_range=0.2)
    auto: Any = AutoModelForCausalLM
    auto.from_config(phi).save_pretrained(folder)
    return folder


def exported(built: Bridge, tmp_path: Path) -> Path:
    export_llava(built, tmp_path / "exported")
    return tmp_path / "exported"


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_loads_it_and_agrees(tower: str, family: str, tmp_path: Path) -> None:
    """Logits and greedy texts of a mixed batch against LlavaForConditionalGeneration and AutoProcessor, fp32."""
    built = bridge(tmp_path, tower=tower, family=family)
    folder = exported(built, tmp_path)
    assert largest_gap(built, Reference(folder)) <= 1e-4
    same_texts(built, folder)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma"])
def test_other_llms(family: str, tmp_path: Path) -> None:
    built = bridge(tmp_path, family=family)
    folder = exported(built, tmp_path)
    assert largest_gap(built, Reference(folder)) <= 1e-4
    same_texts(built, folder, count=4)


def test_phi3_there_and_back(tmp_path: Path) -> None:
    phi3(tmp_path / "phi3")
    built = bridge(tmp_path, llm={"path": str(tmp_path / "phi3")})
    folder = exported(built, tmp_path)
    assert largest_gap(built, Reference(folder)) <= 1e-4
    assert largest_gap(load_llava(folder), Reference(folder)) <= 1e-4


PARTS: dict[str, dict[str, Any]] = {
    "linear": {"connector": {"projector": {"kind": "linear"}}},
    "linear without bias": {"connector": {"projector": {"kind": "linear", "bias": False}}},
    "mlp of depth 1": {"connector": {"projector": {"kind": "mlp", "depth": 1}}},
    "silu without bias": {"connector": {"projector": MLP | {"activation": "silu", "bias": False}}},
    "last layer": {"vision": {"layer": -1}},
    "last layer of SigLIP": {"tower": "siglip", "vision": {"layer": -1}},
    "two layers": {"vision": {"layer": (1, -1)}},
    "with CLS": {"vision": {"tokens": "all"}},
    "padded to a square": {"vision": {"aspect": "pad"}},
    "padded to a square for SigLIP": {"tower": "siglip", "vision": {"aspect": "pad"}},
    "open_clip": {"tower": "open_clip"},
    "named template": {"llm": {"template": "vicuna_v1"}},
    "system message": {"llm": {"system": "Answer in one word.", "separator": " "}},
    "tied embeddings": {"tie_word_embeddings": True},
    "spare rows": {"vocab_size": 512},
    "no pad token": {"tokenizer": {"pad": False}},
    "Phi without a bias in its head": {"family": "phi", "vision": {"layer": 2}},
    "Gemma-2 without a soft cap": {"family": "gemma2", "final_logit_softcapping": None},
    "LoRA": {"llm": {"lora": {"rank": 2, "alpha": 4}}},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_parts(parts: dict[str, Any], tmp_path: Path) -> None:
    built = bridge(tmp_path, **parts)
    for name, tensor in built.llm.named_parameters():
        if name.endswith("lm_head.bias"):
            tensor.data.zero_()
        elif ".lora_B." in name:
            torch.nn.init.normal_(tensor, std=0.3, generator=torch.Generator().manual_seed(2))
    folder = exported(built, tmp_path)
    sizes = [(32, 32)] * 3 if "open_clip" in parts.get("tower", "") else SIZES  # where nothing is resized
    reference = Reference(folder)
    assert largest_gap(built, reference, sizes) <= 1e-4
    same_ids(built, reference)
    same_texts(built, folder, 4, sizes)


@pytest.mark.parametrize("name", ["llava-1.5", "llava-more"])
def test_shipped_recipes_on_the_embedded_world(name: str, tmp_path: Path) -> None:
    """open_clip's tower and a real tokenizer, on images of the size its scenes have.

    Texts are compared in the chat template the world's LLM was taught, as it says nothing at all in another.
    """
    sizes = [(96, 96)] * 3
    built = Bridge(Recipe.load(name, "variant=world"))
    assert largest_gap(built, Reference(exported(built, tmp_path / "own")), sizes) <= 1e-4
    speaking = Bridge(Recipe.load(name, "variant=world", "llm.template=null"))
    same_texts(speaking, exported(speaking, tmp_path / "taught"), 12, sizes)


def test_generation_ends_where_the_bridge_ends_it(tmp_path: Path) -> None:
    """At the template's end of turn too, which the LLM's own generation config does not name."""
    built = bridge(tmp_path)
    ids = built.llm.tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert Reference(exported(built, tmp_path)).model.generation_config.eos_token_id == ids


def test_thinking_stays_off_unless_asked_for(tmp_path: Path) -> None:
    """Qwen3's template thinks by default; the bridge never does, and neither does what it is exported to."""
    unless = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think></think>' }}{% endif %}"
    template = CHATML + "{% if add_generation_prompt %}" + unless + "{% endif %}"
    built = bridge(tmp_path, family="qwen3", tokenizer={"template": template})
    reference = Reference(exported(built, tmp_path))
    same_ids(built, reference)
    talk: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]
    write = reference.processor.apply_chat_template
    assert write(talk, add_generation_prompt=True).endswith("<think></think>")
    assert not write(talk, add_generation_prompt=True, enable_thinking=True).endswith("<think></think>")


def test_a_row_added_for_the_placeholder_is_never_the_likeliest(tmp_path: Path) -> None:
    built = bridge(tmp_path)
    reference = Reference(exported(built, tmp_path))
    weight = reference.model.lm_head.weight
    assert len(weight) == len(built.llm.model.lm_head.weight) + 1 == reference.model.config.image_token_id + 1
    states = torch.randn(100, weight.shape[1]) * 10
    assert ((states @ weight.T).argmax(-1) != len(weight) - 1).all()


def test_the_whole_tower_is_written(tmp_path: Path) -> None:
    """Blocks past the tap do not run here, but other readers of the folder may tap deeper."""
    built = bridge(tmp_path, vision={"layer": 1})
    model = Reference(exported(built, tmp_path)).model
    assert model.config.vision_feature_layer == 1
    assert len(model.model.vision_tower.encoder.layers) == 3


def test_what_a_stage_trained_is_written(tmp_path: Path) -> None:
    built = bridge(tmp_path)
    with torch.no_grad():
        for module in (built.encoders, built.llm):
            for tensor in module.parameters():
                tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)), alpha=0.05)
    assert largest_gap(built, Reference(exported(built, tmp_path))) <= 1e-4


@pytest.mark.parametrize("projector", [MLP, {"kind": "linear"}])
def test_there_and_back(projector: dict[str, Any], tmp_path: Path) -> None:
    built = bridge(tmp_path, connector={"projector": projector})
    again = load_llava(exported(built, tmp_path))
    mine, theirs = built.connectors["image"].state_dict(), again.connectors["image"].state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    assert again.recipe.connectors["image"].projector.kind == projector["kind"]
    assert again.recipe.encoders["vision"].model_dump()["layer"] == -2


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_a_llava_folder_comes_out_as_it_went_in(tower: Any, tmp_path: Path) -> None:
    """Every tensor and every token of transformers' own checkpoint, to the bit."""
    folder = tiny_llava(tmp_path / "llava", tower)
    before, after = Reference(folder), Reference(exported(load_llava(folder), tmp_path))
    state = after.model.state_dict()
    assert state.keys() == before.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.model.state_dict().items())
    assert after.processor.tokenizer.get_vocab() == before.processor.tokenizer.get_vocab()
    assert after.processor.image_processor.to_dict() == before.processor.image_processor.to_dict()
    assert after.processor.chat_template == before.processor.chat_template


def test_half_precision_is_stored_in_half(tmp_path: Path) -> None:
    built = bridge(tmp_path, llm={"dtype": "bfloat16"})
    model: Any = AutoModelForImageTextToText.from_pretrained(exported(built, tmp_path))
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "resampler": (
        {"connector": {"resampler": {"kind": "pixel_shuffle", "factor": 2}}},
        "connectors.image.resampler: LLaVA has no resampler, found pixel_shuffle",
    ),
    "Q-Former": (
        {"connector": {"resampler": {"kind": "qformer", "width": 32, "heads": 4, "layers": 2, "feed_forward": 48}}},
        "connectors.image.resampler: LLaVA has no resampler, found qformer",
    ),
    "end token": (
        {"connector": {"end_token": True}},
        "connectors.image.end_token: LLaVA has no learned end token, found one",
    ),
    "newline": ({"connector": {"newline": True}}, "connectors.image.newline: LLaVA has no learned newline, found one"),
    "position": (
        {"connector": {"position": "learned"}},
        "connectors.image.position: LLaVA has no learned position, found one",
    ),
    "depth": (
        {"connector": {"projector": MLP | {"depth": 3}}},
        "connectors.image.projector.depth: LLaVA has a projector of one or two maps, found 3",
    ),
    "hidden": (
        {"connector": {"projector": MLP | {"hidden": 48}}},
        "connectors.image.projector.hidden: LLaVA's projector is as wide as the LLM (32) between its maps, found 48",
    ),
    "norm": (
        {"vision": {"norm": True}},
        "encoders.image.norm: LLaVA reads hidden states without the final norm, found true",
    ),
    "tiles": ({"vision": {"aspect": "tiles"}}, "encoders.image.aspect: LLaVA reads one view of an image, found tiles"),
    "pooled": (
        {"vision": {"tokens": "pooled", "layer": -1}},
        "encoders.image.tokens: LLaVA reads patches or all tokens, found pooled",
    ),
    "DINOv2": (
        {"tower": "dinov2"},
        "encoders.image.path: LLaVA folders are written with a CLIP or SigLIP tower, found Dinov2Model",
    ),
    "timm": (
        {"tower": "timm_vit"},
        "encoders.image.kind: LLaVA folders are written from open_clip and transformers, found timm",
    ),
    "open_clip by timm": (
        {"tower": "open_clip_timm"},
        "encoders.image.path: open_clip's vision tower is not the ViT of transformers' CLIP (it is carried by timm); "
        "name the same weights for kind transformers",
    ),
    "OPT": (
        {"family": "opt"},
        "llm.path: LLaVA folders are written with an LLM of llama, qwen2, qwen3, mistral, gemma, gemma2, phi, phi3, "
        "found opt",
    ),
    "GPT-2": (
        {"family": "gpt2"},
        "llm.path: LLaVA folders are written with an LLM of llama, qwen2, qwen3, mistral, gemma, gemma2, phi, phi3, "
        "found gpt2",
    ),
    "Gemma-2": (
        {"family": "gemma2"},
        "llm.path: transformers' LLaVA class leaves out the soft cap this LLM puts on its logits",
    ),
    "Phi": ({"family": "phi"}, "llm.path: transformers' LLaVA class has no bias in its output head, this LLM does"),
}


@pytest.mark.parametrize(("parts", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_counterpart_is_refused_in_one_line(parts: dict[str, Any], line: str, tmp_path: Path) -> None:
    built = bridge(tmp_path, **parts)
    with pytest.raises(RecipeError) as caught:
        exported(built, tmp_path)
    assert str(caught.value) == line
    assert not (tmp_path / "exported").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    built = bridge(tmp_path)
    with pytest.raises(UserError, match="expected a new or empty folder"):
        export_llava(built, tmp_path / "llm")
    assert (tmp_path / "llm" / "config.json").exists()
    (tmp_path / "exported").mkdir()
    exported(built, tmp_path)
