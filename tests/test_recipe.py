"""The schema of a recipe: what it holds together and what it costs to import."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from mmbridge.encoders.config import VisionConfig
from mmbridge.errors import RecipeError
from mmbridge.recipe import Recipe
from mmbridge.stage import OptimConfig, ScheduleConfig


def test_quickstart_has_the_stages_it_promises() -> None:
    assert [stage.name for stage in Recipe.load("quickstart").stages] == ["align", "instruct"]


@pytest.mark.parametrize(
    ("name", "lr", "samples", "warmup", "template"),
    [
        ("llava-1.5", [1e-3, 2e-5], [256, 128], [0.03, 0.03], ["plain", None]),
        ("llava-more", [1e-3, 2e-5], [256, 128], [0.03, 0.03], ["plain", None]),
        ("limber", [8e-4], [256], [100], [None]),
        ("blip-2", [1e-4, 1e-4], [1680, 1920], [2000, 2000], [None, None]),
        ("minigpt-4", [1e-4, 3e-5], [256, 12], [5000, 200], ["plain", None]),
        ("instructblip", [1e-4, 1e-5], [1920, 128], [2000, 1000], ["plain", None]),
        ("x-llm", [3e-5, 1e-6], [256, 16], [6000, 0], [None, None]),
        ("align-vlm", [1e-3, 1e-5], [256, 64], [0.03, 0.03], ["plain", None]),
    ],
)
def test_published_hyper_parameters(
    name: str, lr: list[float], samples: list[int], warmup: list[float], template: list[str | None]
) -> None:
    stages = Recipe.load(name).stages
    assert [stage.optim.lr for stage in stages] == lr
    assert [stage.batch * stage.accumulate for stage in stages] == samples
    assert [stage.schedule.warmup for stage in stages] == warmup
    assert [stage.template for stage in stages] == template


@pytest.mark.parametrize(
    ("name", "steps", "smallest", "betas"),
    [
        ("blip-2", [250_000, 80_000], [1e-5, 5e-5], (0.9, 0.98)),
        ("minigpt-4", [20_000, 400], [8e-5, 1e-5], (0.9, 0.999)),
    ],
)
def test_published_schedules(name: str, steps: list[int], smallest: list[float], betas: tuple[float, float]) -> None:
    stages = Recipe.load(name).stages
    assert [stage.steps for stage in stages] == steps
    assert [stage.optim.lr * stage.schedule.floor for stage in stages] == pytest.approx(smallest, rel=1e-5)
    assert {stage.schedule.kind for stage in stages} == {"cosine"}
    assert {(stage.optim.betas, stage.optim.weight_decay, stage.optim.clip) for stage in stages} == {
        (betas, 0.05, None)
    }


def test_blip_2_with_clip_sees_as_many_samples_as_published() -> None:
    recipe = Recipe.load("blip-2", "variant=vit-l,opt-6.7b")
    assert [stage.batch * stage.accumulate for stage in recipe.stages] == [2320, 1920]
    encoder = recipe.encoders["image"]
    assert isinstance(encoder, VisionConfig)
    assert (encoder.layer, recipe.llm.path) == (-2, "facebook/opt-6.7b")


def test_llava_lora_variant() -> None:
    recipe = Recipe.load("llava-1.5", "variant=lora,13b")
    assert recipe.llm.lora is not None
    assert (recipe.llm.path, recipe.llm.lora.rank, recipe.llm.lora.alpha) == ("lmsys/vicuna-13b-v1.5", 128, 256)
    optim = recipe.stages[1].optim
    assert (optim.lr, optim.groups[0].match, optim.groups[0].lr) == (2e-4, "connectors.*", 2e-5)


def test_sections_are_frozen() -> None:
    optim = OptimConfig(lr=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        optim.lr = 2.0  # type: ignore[misc]


def test_bounds() -> None:
    with pytest.raises(ValidationError):
        ScheduleConfig(floor=1.5)
    with pytest.raises(ValidationError):
        OptimConfig(lr=1.0, betas=(0.9, 1.0))


def test_stage_names_are_checked() -> None:
    recipe = Recipe.load("quickstart")
    recipe.require_stages(["align", "instruct"])
    with pytest.raises(RecipeError, match=r"^quickstart: stage: expected one of align, instruct, found 'algin'; did"):
        recipe.require_stages(["algin"])


def test_a_recipe_without_stages_cannot_be_trained() -> None:
    """One is what a LLaVA folder is read as."""
    recipe = Recipe.load("quickstart", "stages=[]")
    with pytest.raises(RecipeError, match=r"^quickstart: stages: expected at least one stage to train, found none$"):
        recipe.require_stages([])


def test_reading_a_recipe_needs_no_torch() -> None:
    code = (
        "import sys, mmbridge; mmbridge.Recipe.load('quickstart').dump();"
        "print([m for m in ('torch', 'transformers', 'numpy', 'open_clip', 'timm', 'deepspeed') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
