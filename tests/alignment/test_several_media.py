"""A bridge of images and vectors, trained, and measured over samples that show one, the other or both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbridge.alignment.measure import OPTIONAL, measure
from mmbridge.alignment.told import told
from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.data.formats import open_source
from mmbridge.recipe import Recipe
from tests.tiny_bridge import COLOURS, tiny_data, tiny_recipe, tiny_stage

KINDS = ("image", "vector")


def chat(*shown: str) -> dict[str, object]:
    """A row of a chat about media."""
    media = [{"type": "vector" if "#" in each else "image", "path": each} for each in shown]
    asked = [*media, {"type": "text", "text": "which?"}]
    colour = COLOURS[int(shown[0][:3] if "#" not in shown[0] else shown[0].split("#")[1]) % len(COLOURS)]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": f"a {colour} one"}]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, twelve vectors, and four conversations that show one of each."""
    folder = tiny_data(tmp_path_factory.mktemp("both"), 16, distinct=True)
    np.save(folder / "items.npy", np.random.default_rng(3).normal(size=(16, 6)).astype(np.float32))
    rows = [chat(f"{n:03d}.png") for n in range(12)] + [chat(f"items.npy#{n}") for n in range(12)]
    rows += [chat(f"{n:03d}.png", f"items.npy#{n}") for n in range(12, 16)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_folder = tmp_path_factory.mktemp("parts")
    recipe(run_folder, data).train(out=run_folder / "run")
    return run_folder / "run"


def recipe(parts: Path, data: Path) -> Recipe:
    tiny_recipe(parts)
    mix = [{"kind": "files", "path": str(data / "chat.jsonl")}]
    stage = tiny_stage(script="instruct", data={"mix": mix}, steps=4)
    return tiny_recipe(
        parts,
        stage,
        encoders={
            "image": {"kind": "transformers", "path": str(parts / "clip")},
            "item": {"kind": "vectors", "path": str(data / "items.npy")},
        },
        connectors={
            "image": {"encoders": ["image"], "projector": {"kind": "mlp", "depth": 2}},
            "item": {"medium": "vector", "encoders": ["item"], "projector": {"kind": "mlp", "depth": 2}},
        },
    )


def test_every_medium_has_scores_of_its_own_and_across(trained: Path, data: Path) -> None:
    """Each kind's curve is that of the samples that show it, and two kinds are compared where transformers' own hidden
    states put them."""
    bridge = Bridge.from_pretrained(trained, device="cpu")
    source = open_source(data / "chat.jsonl")
    report, failed = measure(bridge, source, "both", optional=[each for each in OPTIONAL if each != "tsne"])
    assert failed == ()
    context = bridge.spliced(bridge.collate()([told(source[index]) for index in range(len(source))]), "right")
    with torch.no_grad():
        states = bridge.llm.model(
            inputs_embeds=context.embeds, attention_mask=context.mask, output_hidden_states=True
        ).hidden_states
    tokens = bridge.perceptual_tokens(bridge.collate()([source[0]]))[0]
    last, places = len(bridge.llm.layers) - 1, np.cumsum(context.perceptual.numpy(), axis=1)
    first = tokens[0]  # a picture's tokens stand before a vector's
    shows = {"image": [*range(12), *range(24, 28)], "vector": [*range(12, 28)]}
    for depth in (0, 1, last):
        values = states[depth].detach().double().numpy()
        pooled = {
            kind: np.stack([values[row][_of(kind, row, context.perceptual[row].numpy(), places[row], first)].mean(0)
                            for row in rows])
            for kind, rows in shows.items()
        }  # fmt: skip
        said = {
            kind: np.stack([values[row][context.supervised[row].numpy()].mean(0) for row in rows])
            for kind, rows in shows.items()
        }
        units = {kind: each / np.linalg.norm(each, axis=1, keepdims=True) for kind, each in pooled.items()}
        for kind in KINDS:
            words = said[kind] / np.linalg.norm(said[kind], axis=1, keepdims=True)
            curve = report.curve("ima_matched", kind, f"text beside {kind}")
            assert curve.values[depth].value == pytest.approx(float((units[kind] * words).sum(1).mean()), abs=1e-5)
        across = report.curve("across", *KINDS).values[depth].value
        table = units["image"] @ units["vector"].T
        apart = np.array([[one != other for other in shows["vector"]] for one in shows["image"]])
        assert across == pytest.approx(float(table[apart].mean()), abs=1e-5)  # those that show both are one medium
    masks = {name for curve in report.curves if curve.score == "iou" for name in curve.of}
    assert masks == {*KINDS, "text", "both"}
    for score in ("cka", "mutual_knn", "mir_term"):
        assert {curve.of[0] for curve in report.curves if curve.score == score} == {*KINDS}


def _of(kind: str, row: int, perceptual: np.ndarray, place: np.ndarray, first: int) -> np.ndarray:
    """The positions of one kind's tokens in a row of ``chat.jsonl``."""
    if row < 24:
        return perceptual
    return perceptual & ((place <= first) if kind == "image" else (place > first))


def test_the_verb_tells_both(trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--html", str(tmp_path / "a.html"), "--plot", str(tmp_path / "plots")]
    for extra in ([], ["--dtype", "bfloat16"], ["--dtype", "float16"]):
        assert run(["align", str(trained), str(data / "chat.jsonl"), *files, "--device", "cpu", *extra]) == 0
        said = capsys.readouterr().out
        assert "vector" in said
        assert "nan" not in said
    page = (tmp_path / "a.html").read_text()
    assert all(f"text beside {kind}" in page for kind in KINDS)


def test_a_medium_of_too_few_pairs_does_not_take_the_rest_along(trained: Path, data: Path, tmp_path: Path) -> None:
    rows = (data / "chat.jsonl").read_text().splitlines()
    (data / "few.jsonl").write_text("\n".join([*rows[:12], *rows[12:16]]))
    source = open_source(data / "few.jsonl")
    report, _ = measure(Bridge.from_pretrained(trained, device="cpu"), source, "few", optional=["kernels"])
    assert {curve.of[0] for curve in report.curves if curve.score == "cka"} == {"image"}
    assert report.about["pairs stored"] == "12 of image, 4 of vector (not scored: expected at least 10)"
    assert report.curve("ima", "vector", "text beside vector").values
