"""Training a recipe into a run folder: what is there afterwards, going on, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.alignment.measure import measure
from mmbridge.bridge import Bridge
from mmbridge.data.sample import Sample
from mmbridge.errors import BridgeError, DataError, MMBridgeError, RecipeError, UserError
from mmbridge.objectives.next_token import NextToken
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import parse
from mmbridge.recipes import instruct
from mmbridge.train import train
from mmbridge.validation import Validation
from tests.tiny_bridge import tiny_recipe, tiny_stage


def two_stages(parts: Path, **changes: Any) -> Recipe:
    second = tiny_stage("instruct", script="instruct", template="plain")
    return tiny_recipe(parts, tiny_stage(), second, **changes)


def validated(**changes: Any) -> dict[str, Any]:
    held_out = {"mix": [{"kind": "files", "path": "DATA", "task": "caption", "limit": 6}]}
    return {"data": held_out, "every": 2} | changes


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(folder: Path) -> list[float]:
    return [line["loss"] for line in lines(folder) if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Bridge.from_pretrained(folder, device="cpu").own_tensors()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(each, second[name]) for name, each in first.items())


def stopping(where: int) -> Callable[..., Any]:
    """``NextToken.terms`` that is interrupted when it is called for the ``where``-th time."""
    calls, terms = [0], NextToken.terms

    def interrupted(self: NextToken, batch: Any) -> int:
        calls[0] += 1
        if calls[0] == where:
            raise KeyboardInterrupt
        return terms(self, batch)

    return interrupted


def assert_rates_are_of_needed_flops(steps: list[dict[str, float]], summary: dict[str, Any]) -> None:
    assert all(step["needed_flops"] > 0 for step in steps)
    assert summary["needed_flops"] == sum(step["needed_flops"] for step in steps)
    assert all(step["executed_flops"] >= step["needed_flops"] for step in steps)
    assert summary["executed_flops"] == sum(step["executed_flops"] for step in steps)
    seconds = sum(step["needed_flops"] / (step["needed_tflops_per_second"] * 1e12) for step in steps)
    assert summary["seconds"] == pytest.approx(seconds)
    assert summary["needed_tflops_per_second"] == pytest.approx(summary["needed_flops"] / seconds / 1e12)


def test_a_run_folder_says_all_there_is_to_know(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = two_stages(parts, log={"tensorboard": True, "every": 2})
    bridge = train(recipe, tmp_path / "run")
    run = tmp_path / "run"
    assert {each.name for each in run.iterdir()} == {
        "recipe.yaml", "environment.json", "stages", "bridge", "tensorboard",
    }  # fmt: skip
    assert {each.name for each in (run / "stages").iterdir()} == {"align", "instruct"}
    assert parse((run / "recipe.yaml").read_text(), "recipe.yaml") == recipe
    environment = json.loads((run / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert {"commit", "command", "hardware", "python", "started"} <= environment.keys()
    for name in ("align", "instruct"):
        stage = run / "stages" / name
        assert [line["step"] for line in lines(stage)] == [1, 2, 3]
        assert {"loss", "lr", "grad_norm", "tokens", "samples_per_second", "perceptual_tokens"} <= lines(stage)[
            0
        ].keys()
        assert Bridge.from_pretrained(stage, device="cpu").stage == name
        assert list((run / "tensorboard" / name).glob("events*"))
        assert_rates_are_of_needed_flops(lines(stage), json.loads((stage / "metrics.json").read_text()))
    assert (bridge.stage, bridge.metrics["steps"], bridge.training) == ("instruct", 3, False)
    assert equal(bridge.own_tensors(), weights(run))
    assert not any(each.requires_grad for each in bridge.parameters())
    printed = capsys.readouterr().out
    assert "stage align" in printed
    assert "2,112 " in printed  # trainable parameters
    assert "<image × 16>" in printed
    assert "<|im_end|>⟧" in printed
    assert "align  step 2/3  loss" in printed


def test_stages_follow_each_other_and_the_last_template_stays(parts: Path, tmp_path: Path) -> None:
    bridge = train(two_stages(parts), tmp_path / "run")
    assert bridge.template == "plain"
    assert Bridge.from_pretrained(tmp_path / "run", device="cpu").llm.config.template == "plain"
    assert Bridge.from_pretrained(tmp_path / "run" / "stages" / "align", device="cpu").template is None
    other = tiny_recipe(parts, tiny_stage(), tiny_stage("again", steps=1, optim={"lr": 1e-30}))
    train(other, tmp_path / "other")
    first, second = (weights(tmp_path / "other" / "stages" / name) for name in ("align", "again"))
    for name, each in first.items():
        torch.testing.assert_close(second[name], each)  # it began where the first one ended


def test_the_same_seed_gives_the_same_run(parts: Path, tmp_path: Path) -> None:
    recipe = two_stages(parts, seed=3)
    for name in ("a", "b"):
        train(recipe, tmp_path / name)
    train(two_stages(parts, seed=4), tmp_path / "c")
    for stage in ("align", "instruct"):
        a, b, c = (tmp_path / name / "stages" / stage for name in "abc")
        assert curve(a) == curve(b) != curve(c)
        assert equal(weights(a), weights(b))


def test_interrupted_a_run_goes_on_with_the_stage_it_was_in(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = two_stages(parts), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", stopping(5))  # in the second step of the second stage
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run)
    assert {each.name for each in (run / "stages").iterdir()} == {"align", "instruct.partial"}
    assert len(lines(run / "stages" / "instruct.partial")) == 1
    assert Bridge.from_pretrained(run, device="cpu").stage == "align"
    kept = (run / "stages" / "align" / "bridge.safetensors").stat().st_mtime_ns
    assert train(recipe, run, resume=True).stage == "instruct"
    assert (run / "stages" / "align" / "bridge.safetensors").stat().st_mtime_ns == kept
    train(recipe, tmp_path / "whole")
    assert equal(weights(run), weights(tmp_path / "whole"))
    assert curve(run / "stages" / "instruct") == curve(tmp_path / "whole" / "stages" / "instruct")
    assert train(recipe, run, resume=True).stage == "instruct"  # nothing left to do


def test_stages_one_by_one(parts: Path, tmp_path: Path) -> None:
    recipe, run = two_stages(parts), tmp_path / "run"
    with pytest.raises(RecipeError, match=r"stages.instruct.init: expected the stage before, align, in .*; train it"):
        train(recipe, run, stages=["instruct"])
    assert train(recipe, run, stages=["align"]).stage == "align"
    assert train(recipe, run, stages=["instruct"]).stage == "instruct"
    train(recipe, tmp_path / "whole")
    assert equal(weights(run), weights(tmp_path / "whole"))
    with pytest.raises(RecipeError, match="expected one of align, instruct, found 'allign'"):
        train(recipe, run, stages=["allign"])


def test_what_is_there_is_not_overwritten(parts: Path, tmp_path: Path) -> None:
    recipe, run = tiny_recipe(parts), tmp_path / "run"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(UserError, match=r"expected an empty folder or a run, found chapter\.txt; name another --out"):
        train(recipe, tmp_path / "thesis")
    train(recipe, run)
    with pytest.raises(UserError, match=r"found a run with finished stages \(align\); --resume goes on"):
        train(recipe, run)
    with pytest.raises(RecipeError, match=r"stages.0.optim.lr: expected 0.01 as in .*recipe.yaml, found 0.5"):
        train(tiny_recipe(parts, tiny_stage(optim={"lr": 0.5})), run, resume=True)


def test_a_run_without_a_finished_stage_starts_over(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = tiny_recipe(parts), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", stopping(2))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run)
    with pytest.raises(BridgeError, match="expected a run with a finished stage"):
        Bridge.from_pretrained(run)
    assert train(recipe, run).stage == "align"
    assert not list((run / "stages").glob("*.partial"))


def test_where_a_stage_starts(parts: Path, tmp_path: Path) -> None:
    train(tiny_recipe(parts), tmp_path / "first")
    still: dict[str, Any] = {"steps": 1, "optim": {"lr": 1e-30}}
    built = Bridge(tiny_recipe(parts)).own_tensors()
    trained = weights(tmp_path / "first")
    for init, expected in (("fresh", built), (str(tmp_path / "first"), trained), ("previous", built)):
        out = tmp_path / Path(init).name.replace("first", "path")
        train(tiny_recipe(parts, tiny_stage(init=init, **still)), out)
        found = weights(out)
        for name, each in expected.items():
            torch.testing.assert_close(found[name], each)
    with pytest.raises(UserError, match="no such folder"):
        train(tiny_recipe(parts, tiny_stage(init="./nowhere")), tmp_path / "none")


def test_adapters_may_come_in_with_the_second_stage(parts: Path, tmp_path: Path) -> None:
    train(tiny_recipe(parts), tmp_path / "first")
    stage = tiny_stage("tune", script="instruct", train=["connectors.*", "*lora_*"], init=str(tmp_path / "first"))
    llm = {"path": str(parts / "llm"), "lora": {"rank": 2, "alpha": 2}}
    bridge = train(tiny_recipe(parts, stage, llm=llm), tmp_path / "second")
    assert any(bool(each.any()) for name, each in bridge.own_tensors().items() if "lora_B" in name)
    assert equal(bridge.own_tensors(), weights(tmp_path / "second"))


def scored(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Validation finds these losses, one after the other."""
    found = iter(losses)
    monkeypatch.setattr(Validation, "_loss", lambda self: next(found))


def test_the_best_weights_are_kept(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constant: dict[str, Any] = {"schedule": {"kind": "constant"}}
    for keep in ("best", "last"):
        scored(monkeypatch, 3.0, 1.0, 1.5, 1.0)
        stage = tiny_stage(validation=validated(every=2, keep=keep), steps=7, **constant)
        bridge = train(tiny_recipe(parts, stage), tmp_path / keep)
        found = [line for line in lines(tmp_path / keep / "stages" / "align") if "loss" not in line]
        assert [(line["step"], line["validation/loss"]) for line in found] == [(2, 3.0), (4, 1.0), (6, 1.5), (7, 1.0)]
        assert (bridge.metrics["validation/best/loss"], bridge.metrics["validation/best/step"]) == (1.0, 4)
    for steps, keep in ((4, "best"), (7, "last")):
        train(tiny_recipe(parts, tiny_stage(steps=steps, **constant)), tmp_path / str(steps))
        assert equal(weights(tmp_path / str(steps)), weights(tmp_path / keep))


def test_patience_ends_a_stage(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, 3.0, 1.0, 2.0, 1.0)
    stage = tiny_stage(validation=validated(every=1, patience=2), steps=40)
    assert train(tiny_recipe(parts, stage), tmp_path / "run").metrics["steps"] == 4


def test_the_loss_of_validation_is_a_mean_over_all_its_tokens(parts: Path, tmp_path: Path) -> None:
    losses = []
    for batch in (4, 6):  # 6 samples: two unequal batches, or one
        stage = tiny_stage(validation=validated(every=1), steps=1, batch=batch, optim={"lr": 1e-30})
        train(tiny_recipe(parts, stage), tmp_path / str(batch))
        losses.append(lines(tmp_path / str(batch) / "stages" / "align")[-1]["validation/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_validation_does_not_change_training(parts: Path, tmp_path: Path) -> None:
    dropout = {"image": {"encoders": ["image"], "projector": {"kind": "linear", "dropout": 0.5}}}
    extras: dict[str, dict[str, Any]] = {"with": {"validation": validated(every=1, keep="last")}, "without": {}}
    for name, extra in extras.items():
        train(tiny_recipe(parts, tiny_stage(**extra), connectors=dropout), tmp_path / name)
    first, second = (tmp_path / name / "stages" / "align" for name in ("with", "without"))
    assert curve(first) == curve(second)
    assert equal(weights(first), weights(second))


def test_a_task_is_validated_by_its_metric(parts: Path, tmp_path: Path) -> None:
    task = validated(metric="caption.bleu_4", every=3)
    bridge = train(tiny_recipe(parts, tiny_stage(validation=task)), tmp_path / "run")
    assert 0 <= bridge.metrics["validation/best/caption.bleu_4"] <= 1
    with pytest.raises(RecipeError, match=r"stages.align.validation.metric: expected one of .*bleu_4.*, found fact_f1"):
        train(tiny_recipe(parts, tiny_stage(validation=validated(metric="caption.fact_f1"))), tmp_path / "other")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_alignment_is_logged_beside_validation(parts: Path, tmp_path: Path, precision: str) -> None:
    """As the finished bridge is measured by itself; what is trained is as without it."""
    extra = validated(every=2, keep="last", alignment=100)
    with_it = tiny_stage(validation=extra, steps=4, precision=precision)
    bridge = train(tiny_recipe(parts, with_it), tmp_path / "with")
    train(tiny_recipe(parts, tiny_stage(steps=4, precision=precision)), tmp_path / "without")
    assert equal(weights(tmp_path / "with"), weights(tmp_path / "without"))
    found = [line for line in lines(tmp_path / "with" / "stages" / "align") if "alignment/ima/image" in line]
    assert [line["step"] for line in found] == [2, 4]
    stage = bridge.recipe.stages[0]
    assert stage.validation is not None
    mixture = stage.validation.data.build(0)

    class Drawn:
        name = "drawn"

        def __len__(self) -> int:
            return len(mixture)

        def __getitem__(self, index: int, /) -> Sample:
            return mixture[index]

    report, _ = measure(bridge, Drawn(), "bridge")
    for score in ("ima", "ima_matched", "gap"):
        expected = report.curve(score, "image", "text").mean.value
        tolerance = 1e-5 if precision == "float32" else 2e-2
        assert found[-1][f"alignment/{score}/image"] == pytest.approx(expected, abs=tolerance)


def test_a_loss_that_explodes_stops_the_run(parts: Path, tmp_path: Path) -> None:
    stage = tiny_stage(optim={"lr": 1e38, "clip": None}, schedule={"kind": "constant"}, steps=5)
    with pytest.raises(MMBridgeError, match=r"step 2: the loss is nan; among the samples 0\d\d.png") as caught:
        train(tiny_recipe(parts, stage), tmp_path / "run")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run" / "bridge").exists()


def test_bad_samples_stop_the_run_or_are_counted(parts: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "own", tiny_stage(batch=8, steps=2))
    (tmp_path / "own" / "data" / "005.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"005\.png .*: expected an image, found an empty file"):
        train(recipe, tmp_path / "run")
    skipping = recipe.stages[0].data.model_dump() | {"on_bad_sample": {"skip_up_to": 0.1}}
    bridge = train(tiny_recipe(tmp_path / "own", tiny_stage(batch=8, steps=2, data=skipping)), tmp_path / "run")
    assert (bridge.metrics["skipped"], bridge.metrics["samples"]) == (1, 15)
    little = {**skipping, "on_bad_sample": {"skip_up_to": 0.01}}
    few = tiny_recipe(tmp_path / "own", tiny_stage(batch=8, steps=2, data=little))
    with pytest.raises(DataError, match="expected at most 0 bad samples, found 1"):
        train(few, tmp_path / "other")


def test_a_tracker_that_is_not_installed_is_known_before_training(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"log.trackio: expected the package trackio to be installed.*mmbridge\[trackio\]"
    ):
        train(tiny_recipe(parts, log={"trackio": "project"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipe_trains_itself(parts: Path, tmp_path: Path) -> None:
    bridge = tiny_recipe(parts).train(out=tmp_path / "run")
    assert equal(bridge.own_tensors(), weights(tmp_path / "run"))


def test_both_scripts_are_short() -> None:
    for name in ("align", "instruct"):
        count = len((Path(instruct.__file__).parent / f"{name}.py").read_text().splitlines())
        assert 40 <= count <= 80
