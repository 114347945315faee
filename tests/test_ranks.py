"""Several processes take the steps of one: plain torch and every ZeRO stage, whatever media a process is given."""

import json
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.data.loader import Loader
from mmbridge.engine import Engine
from mmbridge.engine_config import DeepSpeedEngineConfig, EngineConfig, TorchEngineConfig
from mmbridge.evaluation.report import Report
from mmbridge.evaluation.run import evaluate
from mmbridge.loop import fit
from mmbridge.ranks import ALONE, Ranks, together
from mmbridge.recipe import Recipe
from mmbridge.recompute import recompute
from mmbridge.trainable import unfreeze
from mmbridge.validation import Validation
from mmbridge.word_counts import count_words
from tests import processes
from tests.evaluation.test_run import FakeBridge, Listed, asked, number, questions
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe, tiny_stage

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"kind": "torch", "device": "cpu"},
    **{f"zero-{stage}": {"kind": "deepspeed", "device": "cpu", "zero_stage": stage} for stage in range(4)},
}
OFFLOADED: dict[str, dict[str, Any]] = {
    "zero-2 offloaded": {**ENGINES["zero-2"], "offload_optimizer": True},
    "zero-3 offloaded": {**ENGINES["zero-3"], "offload_optimizer": True, "offload_param": True},
}
SHARDED: dict[str, dict[str, Any]] = {
    "zero-3 of all": {**ENGINES["zero-3"], "config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
}
"""ZeRO-3 leaves small weights whole in every process, and all of a tiny LLM's are small."""
QUANTISED = [("nf4", name) for name in (*ENGINES, *SHARDED)] + [("int8", "torch"), ("int8", "zero-2")]
RECOMPUTED = [(how, name) for how in (1, "selective") for name in (*ENGINES, *SHARDED)]
PRECISIONS = ("float32", "bfloat16")
MEDIA = ("image", "text", "mixed")
MUON = {"kind": "muon", "lr": 1e-2, "weight_decay": 0.1, "clip": 0.5}
QFORMER = {"kind": "qformer", "queries": 5, "width": 32, "layers": 3, "heads": 4, "feed_forward": 48, "dropout": 0}
STEPS = 4
HELD_OUT = {
    "data": {"mix": [{"kind": "files", "path": "DATA", "task": "caption", "limit": 13}]},
    "every": 1,
    "metric": "caption.bleu_4",
}
"""Seven batches of two."""


def talk(folder: Path) -> Path:
    """Conversations without media, of unequal length."""
    rows = [
        {
            "id": f"t{index}",
            "messages": [
                {"role": "user", "content": "how many?"},
                {"role": "assistant", "content": "one " * (1 + index % 4)},
            ],
        }
        for index in range(12)
    ]
    path = folder / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, media: str, precision: str, batch: int, **changes: Any) -> Recipe:
    """Steps of 8 samples in two batches. A mixed batch of one sample often lacks an image in one of two processes."""
    images = {"kind": "files", "path": "DATA", "task": "caption"}
    text = {"kind": "files", "path": str(folder / "talk.jsonl"), "task": "messages"}
    mix = {"image": [images], "text": [text], "mixed": [images, text]}[media]
    stage: dict[str, Any] = {
        "data": {"mix": mix},
        "train": ["connectors.*", "llm.*.1.mlp*"] if media == "text" else ["connectors.*"],
        "script": "instruct",
        "optim": {"lr": 1e-2, "weight_decay": 0.1, "clip": 0.5},
        "schedule": {"kind": "cosine", "warmup": 2},
        "precision": precision,
        "steps": STEPS,
        "accumulate": 2,
        "batch": batch,
    } | changes
    quantization = stage.pop("quantization", None)
    llm = {"path": str(folder / ("wide" if quantization else "llm")), "quantization": quantization}
    connector = {"encoders": ["image"], "projector": {"kind": "mlp", "depth": 2}}
    connector["resampler"] = stage.pop("resampler", {"kind": "identity"})
    return tiny_recipe(folder, tiny_stage(**stage), llm=llm, connectors={"image": connector})


def config(name: str) -> EngineConfig:
    kind = TorchEngineConfig if name == "torch" else DeepSpeedEngineConfig
    return kind.model_validate((ENGINES | OFFLOADED | SHARDED)[name])


def started(recipe: Recipe, engine: str, ranks: Ranks) -> tuple[Engine, Loader, int]:
    """The engine of the recipe's stage, and its batches, with how many steps they are."""
    stage = recipe.stages[0]
    bridge = Bridge(recipe)
    unfreeze(bridge, stage, "stages.align", parts=["connectors.", "llm."])
    loader, steps = training_batches(bridge, stage, 0, ranks)
    torch.manual_seed(0)
    built = config(engine).build(bridge, stage, steps, "stages.align", ranks)
    bridge.llm.recompute = recompute(built, stage, loader, "stages.align")
    count_words(built.objectives, loader)
    return built, loader, steps


def curve(recipe: Recipe, engine: str, ranks: Ranks, *, poison: int = 0) -> dict[str, Any]:
    """Losses, norms and samples of every step; a fingerprint of what trained; whether all else is as it was.

    In step ``poison`` the loss of the last process is not a number.
    """
    made, loader, steps = started(recipe, engine, ranks)
    accumulate = recipe.stages[0].accumulate
    frozen = {f"{name}": hash_of(each) for name, each in Bridge(recipe).named_parameters()}
    if poison:
        poisoned(made, (poison - 1) * accumulate)
    taken = list(fit(made, loader.steps(), steps, spare=1))
    weights = made.weights()
    made.close()
    after = dict(made.bridge.named_parameters())
    return {
        "losses": [step.loss for step in taken if not step.left_out],
        "norms": [step.grad_norm for step in taken if not step.left_out],
        "left out": [step.left_out for step in taken],
        "samples": [step.samples for step in taken],
        "weights": fingerprint(weights),
        "whole": fingerprint({name: after[name].detach() for name in weights}),
        "changed": sorted(name for name, each in after.items() if hash_of(each) != frozen[name]),
    }


def said(recipe: Recipe, engine: str, ranks: Ranks) -> dict[str, Any]:
    """What a bridge says to held-out samples, what that scores as validation, and how many batches each process did."""
    made, _, steps = started(recipe, engine, ranks)
    generate, done, reports = made.bridge.generate, list[int](), list[Report]()

    def counted(*arguments: Any) -> Any:
        done.append(1)
        return generate(*arguments)

    def kept(*arguments: Any, **options: Any) -> Report:
        reports.append(evaluate(*arguments, **options))
        return reports[-1]

    made.bridge.generate = counted  # type: ignore[assignment, method-assign]
    with patch("mmbridge.validation.evaluate", kept):
        score = Validation(made, recipe.stages[0], steps, 0, "stages.align")(1)
    batches = [int(each) for each in ranks.gather(torch.tensor(len(done)))]
    return {"score": score, "batches": batches, "texts": [[row.id, row.prediction] for row in reports[0].rows]}


def reported(ranks: Ranks) -> dict[str, Any]:
    """A report with failures: a row that cannot be read, and a picture that cannot."""
    samples = questions(23)
    samples[5] = asked(5, "what is 5?", {"answers": ["5"]}, name="broken")
    bridge = FakeBridge(lambda text: "3" if "what is 7" in text else number(text))
    report = evaluate(bridge, Listed(samples, frozenset({8})), "vqa", batch_size=4, count_flops=False, ranks=ranks)
    rows = [[row.id, row.prediction, row.kind, row.perceptual_tokens] for row in report.rows]
    failed = [[each.id, each.error] for each in report.failed]
    return {"rows": rows, "failed": failed, "scores": {name: each.value for name, each in report.metrics.items()}}


def poisoned(engine: Engine, call: int) -> None:
    losses, calls = engine.losses, iter(range(1000))

    def bad(batch: Any, terms: Any) -> Tensor:
        last = engine.ranks.rank == engine.ranks.count - 1
        return losses(batch, terms) * (float("nan") if next(calls) == call and last else 1)

    engine.losses = bad  # type: ignore[method-assign]


def gone_on(recipe: Recipe, before: str, after: str, ranks: Ranks) -> dict[str, Any]:
    """The steps that are left when another engine takes over after two, from what the first one kept."""
    made, loader, steps = started(recipe, before, ranks)
    running = fit(made, loader.steps(), steps)
    next(running), next(running)
    kept, place = made.state(), loader.state()
    made.close()
    made, loader, steps = started(recipe, after, ranks)
    made.load_state(kept)
    loader.load_state(place)
    taken = list(fit(made, loader.steps(), steps, first=2))
    return {"losses": [step.loss for step in taken], "weights": fingerprint(made.weights())}


def fingerprint(tensors: dict[str, Tensor]) -> dict[str, list[float]]:
    return {name: [float(each.double().sum()), float(each.double().square().sum())] for name, each in tensors.items()}


def hash_of(tensor: Tensor) -> str:
    return sha256(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


BUDGET = 60
"""Positions of a forward pass: the samples have about 30."""
TAKEN_OVER = [(name, name) for name in ENGINES] + [("zero-3", "torch"), ("torch", "zero-2"), ("zero-1", "zero-3")]


def all_of_it(folder: str) -> dict[str, Any]:
    """What the tests below look at, from each of two processes."""
    parts, found = Path(folder), dict[str, Any]()
    with together() as ranks:
        for precision in PRECISIONS:
            for media in MEDIA:
                given = recipe(parts, media, precision, batch=2)
                found |= {f"{name} {precision} {media}": curve(given, name, ranks) for name in ENGINES}
        muon = recipe(parts, "mixed", "float32", batch=2, optim=MUON)
        found |= {f"{name} muon": curve(muon, name, ranks) for name in ENGINES}
        mixed = recipe(parts, "mixed", "float32", batch=2)
        found |= {f"{name} mixed": curve(mixed, name, ranks) for name in OFFLOADED | SHARDED}
        queried = recipe(parts, "mixed", "float32", batch=2, resampler=QFORMER)
        found |= {f"{name} queried": curve(queried, name, ranks) for name in ENGINES | SHARDED}
        dealt = recipe(parts, "mixed", "float32", batch=2, budget=BUDGET)
        found |= {f"{name} dealt": curve(dealt, name, ranks) for name in ENGINES}
        for how, name in RECOMPUTED:
            given = recipe(parts, "mixed", "float32", batch=2, recompute=how)
            found[f"{name} recomputes {how}"] = curve(given, name, ranks)
        for kind, name in QUANTISED if find_spec("bitsandbytes") else ():
            given = recipe(parts, "mixed", "float32", batch=2, quantization=kind)
            found[f"{name} {kind}"] = curve(given, name, ranks)
        found |= {f"{name} poisoned": curve(mixed, name, ranks, poison=2) for name in ENGINES}
        held_out = recipe(parts, "image", "float32", batch=2, validation=HELD_OUT)
        found |= {f"{name} said": said(held_out, name, ranks) for name in ENGINES}
        found["report"] = reported(ranks)
        found |= {f"{first} then {then}": gone_on(mixed, first, then, ranks) for first, then in TAKEN_OVER}
    return found


def told(_: str) -> list[Any]:
    """What each process has: rows of its own number, none in the main one, and a text as long."""
    with together() as ranks:
        mine = torch.full((2 * ranks.rank, 3), ranks.rank + 1.5)
        rows, texts = ranks.rows(mine), ranks.texts("é" * 2 * ranks.rank)
        return [[each.tolist() for each in rows], texts]


def test_processes_tell_each_other_rows_and_texts_of_any_length(tmp_path: Path) -> None:
    found = processes.together(told, "", folder=tmp_path / "told")
    assert found == [[[], [[2.5] * 3] * 2], ["", "éé"]]
    assert ALONE.texts("é") == ["é"]


@pytest.fixture(scope="module")
def parts(parts: Path) -> Path:
    talk(parts)
    tiny_llm(parts / "wide", hidden_size=64, intermediate_size=128)
    return parts


@pytest.fixture(scope="module")
def two(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.together(all_of_it, str(parts), folder=tmp_path_factory.mktemp("two"))


def as_one(parts: Path, media: str, precision: str, **changes: Any) -> dict[str, Any]:
    poison = changes.pop("poison", 0)
    return curve(recipe(parts, media, precision, batch=4, **changes), "torch", ALONE, poison=poison)


def same(found: dict[str, Any], expected: dict[str, Any], exact: float = 1e-5) -> None:
    assert found["losses"] == pytest.approx(expected["losses"], rel=exact)
    assert found["norms"] == pytest.approx(expected["norms"], rel=10 * exact)
    assert found["samples"] == expected["samples"] == [8] * STEPS
    assert found["losses"][0] != found["losses"][-1]
    assert found["changed"] == expected["changed"] != []
    assert set(found["changed"]) <= set(found["weights"])
    assert found["weights"] == found["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_processes_take_the_steps_of_one(precision: str, media: str, parts: Path, two: dict[str, Any]) -> None:
    """Plain torch and every ZeRO stage; one process has the whole batch."""
    expected = as_one(parts, media, precision)
    for engine in ENGINES:
        same(two[f"{engine} {precision} {media}"], expected, 1e-5 if precision == "float32" else 2e-2)


@pytest.mark.slow
def test_muon_keeps_matrices_whole_under_zero(parts: Path, two: dict[str, Any]) -> None:
    expected = as_one(parts, "mixed", "float32", optim=MUON)
    for engine in ENGINES:
        same(two[f"{engine} muon"], expected, 1e-4)  # Newton-Schulz works in bfloat16


@pytest.mark.slow
def test_a_qformer_takes_the_same_steps(parts: Path, two: dict[str, Any]) -> None:
    """Its parts are called one by one, which is where ZeRO-3 gathers their weights; a process may have no image."""
    expected = as_one(parts, "mixed", "float32", resampler=QFORMER)
    for engine in ENGINES | SHARDED:
        same(two[f"{engine} queried"], expected)


@pytest.mark.slow
def test_steps_dealt_by_length_are_the_same_steps(parts: Path, two: dict[str, Any]) -> None:
    """A budget of a sample or two: forward passes differ in number from step to step and from those of one process."""
    expected = as_one(parts, "mixed", "float32")
    same(as_one(parts, "mixed", "float32", budget=BUDGET), expected)
    for engine in ENGINES:
        same(two[f"{engine} dealt"], expected)


@pytest.mark.slow
def test_what_is_kept_in_main_memory_or_sharded_takes_the_same_steps(parts: Path, two: dict[str, Any]) -> None:
    expected = as_one(parts, "mixed", "float32")
    for engine in OFFLOADED | SHARDED:
        same(two[f"{engine} mixed"], expected)


@pytest.mark.slow
def test_blocks_that_recompute_take_the_same_steps(parts: Path, two: dict[str, Any]) -> None:
    """Under ZeRO-3 they gather their weights once more."""
    expected = as_one(parts, "mixed", "float32")
    for how, engine in RECOMPUTED:
        same(two[f"{engine} recomputes {how}"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_llm_takes_the_same_steps(kind: str, parts: Path, two: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    expected = as_one(parts, "mixed", "float32", quantization=kind)
    for _, engine in (each for each in QUANTISED if each[0] == kind):
        same(two[f"{engine} {kind}"], expected)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"zero_stage": 0, "offload_optimizer": True}, "offload_optimizer: expected zero_stage 1, 2 or 3, found 0"),
        ({"zero_stage": 2, "offload_param": True}, "offload_param: expected zero_stage 3, found 2"),
        ({"config": {"bf16": {}}}, "bf16: expected keys that the recipe does not decide; set the stage's precision"),
        ({"config": {"zero_optimization": {"stage": 1}}}, "zero_optimization.stage: .*; set engine.zero_stage"),
    ],
)
def test_what_contradicts_the_recipe_is_refused(section: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        DeepSpeedEngineConfig.model_validate({"kind": "deepspeed", **section})


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_one_process_is_left_out_by_all(parts: Path, two: dict[str, Any]) -> None:
    expected = as_one(parts, "mixed", "float32", poison=2)
    assert len(expected["losses"]) == STEPS - 1
    for engine in ENGINES:
        found = two[f"{engine} poisoned"]
        same(found, expected)
        assert [bool(each) for each in found["left out"]] == [False, True, False, False]
        assert found["left out"][1].startswith("the loss is nan; among the samples ")


@pytest.mark.slow
def test_processes_share_the_answering_of_held_out_samples(parts: Path, two: dict[str, Any]) -> None:
    """Where weights are sharded, all answer all: they could not wait for each other in between."""
    expected = said(recipe(parts, "image", "float32", batch=2, validation=HELD_OUT), "torch", ALONE)
    assert expected["batches"] == [7]
    assert len({text for _, text in expected["texts"]}) > 1
    for engine in ENGINES:
        found = two[f"{engine} said"]
        assert found["batches"] == ([7, 7] if engine == "zero-3" else [4, 3])
        assert {**found, "batches": [7]} == expected
    assert two["report"] == reported(ALONE)
    assert len(two["report"]["failed"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), TAKEN_OVER)
def test_another_engine_goes_on_from_what_one_kept(first: str, then: str, two: dict[str, Any]) -> None:
    found, whole = two[f"{first} then {then}"], two[f"{then} float32 mixed"]
    if first == then:
        assert found["losses"] == whole["losses"][2:]
        assert found["weights"] == whole["weights"]
    else:
        assert found["losses"] == pytest.approx(whole["losses"][2:], rel=1e-5)
