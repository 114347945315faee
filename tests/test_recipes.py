"""Every shipped recipe runs on the embedded world with one override, and what it trains can be used."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.media_input import MediumInput
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import shipped


def shown(bridge: Bridge) -> MediumInput:
    """Something of the kind that its first connector reads."""
    config = next(iter(bridge.recipe.connectors.values()))
    if config.medium == "vector":
        facts = bridge.encoder(config.encoders[0]).facts
        return np.ones((facts.tokens, facts.width), np.float32)
    return Image.new("RGB", (96, 64), "red")


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_two_steps_on_the_embedded_world(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, "variant=world", "engine.device=cpu")
    assert {stage.steps for stage in recipe.stages} == {2}
    bridge = recipe.train(out=tmp_path)
    answer = bridge.caption(shown(bridge), max_new_tokens=3)
    assert answer.perceptual_tokens > 0
    assert (tmp_path / "bridge" / "recipe.yaml").is_file()


@pytest.mark.slow
def test_every_verb_on_a_real_bridge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the recipe to a LLaVA folder, by the command line alone."""
    bridge, world, scores = str(tmp_path / "run"), str(tmp_path / "world"), str(tmp_path / "scores" / "vqa.json")
    assert run(["train", "llava-1.5", "variant=world", "--out", bridge, "--device", "cpu", "--stage", "align"]) == 0
    assert run(["data", "make-world", world, "--split", "test", "--seed", "3", "--count", "2"]) == 0
    capsys.readouterr()

    assert run(["caption", bridge, world, "--json", "--max-new-tokens", "4", "--device", "cpu"]) == 0
    captions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["media"][0]).suffix for line in captions] == [".png", ".png"]
    assert captions[0]["perceptual_tokens"] == captions[0]["kept_tokens"] > 0

    assert run(["ask", bridge, world, "-q", "How many?", "--stream", "--max-new-tokens", "4", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("\n")

    limited = ["--limit", "3", "--max-new-tokens", "4", "--device", "cpu"]
    assert run(["eval", bridge, world, "--task", "vqa", "--json", scores, *limited]) == 0
    report = json.loads(Path(scores).read_text())
    assert (report["task"], report["n"]) == ("vqa", 3)
    assert {"metrics", "flops", "seconds"} <= report.keys()
    assert len(Path(f"{scores}.rows.jsonl").read_text().splitlines()) == 3

    capsys.readouterr()
    assert run(["info", bridge, "--json"]) == 0
    parts = {part["part"]: part for part in json.loads(capsys.readouterr().out)["parts"]}
    assert parts["connector image"]["trained"] > 0 == parts["connector image"]["frozen"]
    assert parts["llm"]["frozen"] > 0 == parts["llm"]["trained"]
    assert parts["connector image"]["tokens"] == captions[0]["perceptual_tokens"]

    assert run(["export", bridge, str(tmp_path / "llava"), "--format", "llava"]) == 0
    assert run(["caption", str(tmp_path / "llava"), world, "--max-new-tokens", "4", "--device", "cpu"]) == 0
