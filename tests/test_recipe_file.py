"""Recipes as files: what is read, what overrides do, and what each mistake is told as."""

from pathlib import Path

import pytest

from mmbridge.errors import RecipeError
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import load, parse, shipped

TEXT = """\
name: small
about: a recipe for these tests
encoders:
  image: {kind: open_clip, path: "world:clip"}
connectors:
  image:
    encoders: [image]
    projector: {kind: mlp, depth: 2}
llm: {path: "world:llm"}
stages:
  - name: align
    script: align
    train: [connectors.*]
    objectives: [{kind: next_token}]
    data: {mix: [{kind: world, split: train, count: 8, seed: 0, task: caption}]}
    optim: {lr: 1e-3}
    batch: 4
    epochs: 1
  - name: instruct
    script: instruct
    train: [connectors.*]
    objectives: [{kind: next_token}]
    data: {mix: [{kind: world, split: train, count: 8, seed: 0, task: vqa}]}
    optim: {lr: 1.0e-3}
    batch: 4
    steps: 5
variants:
  short: {stages.align.steps: 2, stages.instruct.steps: 2}
  deep: {connectors.image.projector.depth: 3, stages.align.steps: 3}
"""


def recipe(*overrides: str, text: str = TEXT) -> Recipe:
    return parse(text, "small.yaml", overrides)


def line(*overrides: str, text: str = TEXT) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides, text=text)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


# --- reading ---


def test_scientific_notation_is_a_number() -> None:
    assert recipe().stages[0].optim.lr == 1e-3
    assert recipe("stages.0.optim.lr=2e-4").stages[0].optim.lr == 2e-4
    assert recipe("stages.0.optim.lr=3E-05").stages[0].optim.lr == 3e-5


def test_text_that_looks_like_a_number_survives_a_dump() -> None:
    written = recipe("about='1e5'")
    assert written.about == "1e5"
    assert parse(written.dump(), "dumped.yaml") == written


@pytest.mark.parametrize("name", shipped())
def test_a_dumped_recipe_loads_equal(name: str) -> None:
    for overrides in ([], ["variant=world"]):
        loaded = load(name, overrides)
        assert parse(loaded.dump(), "dumped.yaml") == loaded


def test_a_dump_writes_defaults_out_and_keeps_world_names() -> None:
    text = recipe().dump()
    assert "weight_decay: 0.0" in text
    assert "path: world:clip" in text
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize("name", shipped())
def test_every_variant_of_every_shipped_recipe_is_valid(name: str) -> None:
    variants = load(name).variants
    assert "world" in variants
    for variant in variants:
        load(name, [f"variant={variant}"])


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_has_the_name_of_its_file(name: str) -> None:
    assert load(name).name == name


def test_a_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    assert Recipe.load(path) == Recipe.load(str(path)) == recipe()


# --- overrides ---


def test_overrides_reach_items_by_index_and_by_name() -> None:
    assert recipe("stages.1.batch=8") == recipe("stages.instruct.batch=8")
    assert recipe("stages.1.batch=8").stages[1].batch == 8


def test_later_overrides_win() -> None:
    assert recipe("stages.0.batch=8", "stages.0.batch=16").stages[0].batch == 16


def test_an_override_starts_a_section_left_to_its_defaults() -> None:
    assert recipe("stages.0.schedule.warmup=0.1").stages[0].schedule.warmup == 0.1
    assert recipe("engine.kind=torch") == recipe()


def test_an_override_may_give_a_section_whole() -> None:
    two = recipe("connectors.image={encoders: [image], projector: {kind: linear}}")
    assert two.connectors["image"].projector.kind == "linear"


def test_steps_and_epochs_replace_each_other() -> None:
    assert (recipe("stages.0.steps=2").stages[0].steps, recipe("stages.0.steps=2").stages[0].epochs) == (2, None)
    assert recipe("stages.1.epochs=2").stages[1].steps is None


def test_variants_apply_in_order_and_before_other_overrides() -> None:
    both = recipe("variant=short,deep")
    assert [stage.steps for stage in both.stages] == [3, 2]
    assert (
        both.connectors["image"].projector == recipe("connectors.image.projector.depth=3").connectors["image"].projector
    )
    assert recipe("stages.0.steps=9", "variant=short").stages[0].steps == 9


# --- mistakes ---

UNFIT = {
    "stages.0.optim.lrr=1": "stages.0.optim.lrr: unknown key; did you mean 'lr'?",
    "lmm.path=x": "lmm: unknown key; did you mean 'llm'?",
    "connectors.image.projector.kind=mpl": "connectors.image.projector.kind: expected one of linear, mlp, vocabulary, "
    "found 'mpl'; did you mean 'mlp'?",
    "encoders.image.kind=openclip": "encoders.image.kind: expected one of open_clip, timm, transformers, vectors, "
    "found 'openclip'; did you mean 'open_clip'?",
    "encoders.image.layer=last": "encoders.image.layer: expected a whole number or a list of whole numbers, "
    "found 'last'",
    "encoders.image.pinpoints=[[1, 2]]": "encoders.image.pinpoints: only aspect tiles reads them, found aspect own",
    "connectors.image.encoders=[imgae]": "connectors.image.encoders.0: expected image, found 'imgae'; "
    "did you mean 'image'?",
    "connectors.image.encoders=image": "connectors.image.encoders: expected a non-empty list of texts, found 'image'",
    "stages.0.batch=ten": "stages.0.batch: expected a whole number of at least 1, found 'ten'",
    "stages.0.batch=0": "stages.0.batch: expected a whole number of at least 1, found 0",
    "stages.0.optim.lr=-1": "stages.0.optim.lr: expected a number above 0, found -1",
    "stages.0.optim.lr=.inf": "stages.0.optim.lr: expected a number above 0, found inf",
    "stages.0.optim=fast": "stages.0.optim: expected a section of keys, found 'fast'",
    "stages.0.optim.betas=[0.9, 2]": "stages.0.optim.betas.1: expected a number of at least 0 and below 1, found 2",
    "stages.0.optim.betas=[0.9]": "stages.0.optim.betas.1: missing; expected a number of at least 0 and below 1",
    "stages.0.schedule.kind=cosinus": "stages.0.schedule.kind: expected one of cosine, linear, constant, "
    "found 'cosinus'; did you mean 'cosine'?",
    "stages.0.script=aling": "stages.0.script: expected one of align, instruct, found 'aling'; did you mean 'align'?",
    "stages.0.data.on_bad_sample=skip": "stages.0.data.on_bad_sample: expected raise or a section of keys, "
    "found 'skip'",
    "stages.0.data.on_bad_sample={skip_upto: 0.1}": "stages.0.data.on_bad_sample.skip_upto: unknown key; "
    "did you mean 'skip_up_to'? (and 1 more)",
    "stages.0.objectives=[{kind: token_transport, plan: {kind: sinkhron}}]": "stages.0.objectives.0.plan.kind: "
    "expected one of ipot, sinkhorn, unbalanced, found 'sinkhron'; did you mean 'sinkhorn'?",
    "stages.0.objectives=[{kind: token_transport, plan: {kind: ipot, epsilon: 1}}]": "stages.0.objectives.0.plan."
    "epsilon: unknown key",
    "stages.0.objectives=[{kind: token_transport, plan: {kind: unbalanced, tokens: null}}]": "stages.0.objectives.0."
    "plan.tokens: expected a number where words has none; set kind to sinkhorn to carry all",
    "stages.0.objectives=[{kind: divergence, of: all}]": "stages.0.objectives.0.of: expected one of batch, pair, "
    "found 'all'",
    "stages.0.objectives=[{kind: divergence, epsilon: 0}]": "stages.0.objectives.0.epsilon: expected a number above 0, "
    "found 0",
    "stages.0={}": "stages.0.name: missing; expected text (and 6 more)",
    "stages.1.name=align": "stages.1.name: expected a name of its own, found 'align' twice",
    "stages.1.name=a b": "stages.1.name: expected text that matches ^[A-Za-z][A-Za-z0-9_-]*$, found 'a b'",
    "encoders={}": "encoders: expected a non-empty section of keys, found an empty one",
    "stages=3": "stages: expected a list of sections, found 3",
    "engine.kind=torhc": "engine.kind: expected one of torch, deepspeed, found 'torhc'; did you mean 'torch'?",
    "log.tensorboard=maybe": "log.tensorboard: expected true or false, found 'maybe'",
    "llm.lora={rank: 4}": "llm.lora.alpha: missing; expected a number above 0",
    "llm.path=null": "llm.path: expected text, found nothing",
}
INAPPLICABLE = {
    "stages.5.steps=1": "stages.5: no such item; stages has 0 align, 1 instruct",
    "stages.instrct.steps=1": "stages.instrct: no such item; stages has 0 align, 1 instruct; did you mean 'instruct'?",
    "connectors.imgae.projector.depth=1": "connectors.imgae: no such part; did you mean 'image'?",
    "llm.path.x=1": "llm.path: expected a section of keys, found 'world:llm'",
    "stages.0.optim.lr.peak=1": "stages.0.optim.lr: expected a section of keys, found 0.001",
    "variant=shrot": "variants.shrot: no such variant; expected one of short, deep; did you mean 'short'?",
}
UNREADABLE = {
    "stages.0.steps": "stages.0.steps: expected KEY=VALUE; overrides look like stages.0.steps=100",
    "stages..steps=1": "stages..steps=1: expected KEY=VALUE; overrides look like stages.0.steps=100",
    "=3": "=3: expected KEY=VALUE; overrides look like stages.0.steps=100",
    "stages.0.train=[a": "stages.0.train=[a: line 1: not YAML: expected ',' or ']', but got '<stream end>'",
}


@pytest.mark.parametrize(("override", "expected"), (UNFIT | INAPPLICABLE).items())
def test_one_line_says_where_and_what(override: str, expected: str) -> None:
    assert line(override) == f"small.yaml: {expected}"


@pytest.mark.parametrize(("override", "expected"), UNREADABLE.items())
def test_overrides_that_cannot_be_read(override: str, expected: str) -> None:
    assert line(override) == expected


def test_a_misspelt_key_is_told_before_what_it_leaves_missing() -> None:
    text = TEXT.replace("    batch: 4\n    epochs", "    bacth: 4\n    epochs")
    assert line(text=text) == "small.yaml: stages.0.bacth: unknown key; did you mean 'batch'? (and 1 more)"


def test_neither_steps_nor_epochs() -> None:
    text = TEXT.replace("    epochs: 1\n", "")
    assert line(text=text) == "small.yaml: stages.0: expected exactly one of steps and epochs, found neither"


def test_a_key_given_twice() -> None:
    assert (
        line(text=TEXT + "name: other\n")
        == f"small.yaml: line {len(TEXT.splitlines()) + 1}: not YAML: the key 'name' is given twice"
    )


def test_broken_yaml_is_told_with_its_line() -> None:
    assert line(text="name: x\nabout: [\n").startswith("small.yaml: line 3: not YAML: ")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_recipe(text: str) -> None:
    assert "expected a recipe, a section of keys, found" in line(text=text)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^quickstrat: unknown recipe; did you mean 'quickstart'\?$"):
        load("quickstrat")
    with pytest.raises(RecipeError, match=r"^zzz: unknown recipe; shipped are .*quickstart"):
        load("zzz")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="expected a recipe file, found a folder"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path / "binary.yaml")


def test_a_python_object_in_yaml_is_refused() -> None:
    assert "not YAML" in line(text="name: !!python/object/apply:os.getcwd []\n")
