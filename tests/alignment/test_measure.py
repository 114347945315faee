"""A bridge measured end to end: figures against states that transformers returns, what is left out, what is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbridge.alignment.measure import OPTIONAL, measure
from mmbridge.alignment.parts import Part
from mmbridge.alignment.report import View
from mmbridge.alignment.told import told
from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.data.formats import open_source
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.data.sources import Source
from mmbridge.errors import DataError
from tests.tiny_bridge import tiny_data, tiny_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bridge and its data, made once; tests leave them as they are."""
    made = tmp_path_factory.mktemp("tiny")
    Bridge(tiny_recipe(made)).save_pretrained(made / "bridge")
    tiny_data(made / "data", distinct=True)
    return made


@pytest.fixture(scope="module")
def bridge(folder: Path) -> Bridge:
    return Bridge.from_pretrained(folder / "bridge", device="cpu")


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(str(folder / "data"), None, task="caption")


def test_figures_are_those_of_hidden_states(bridge: Bridge, source: Source) -> None:
    """One sample at a time through transformers, cosines by NumPy; of text, the answer alone or all that follows."""
    batch = bridge.collate()([told(source[index]) for index in range(len(source))])
    context = bridge.spliced(batch, "right")
    with torch.no_grad():
        states = bridge.llm.model(
            inputs_embeds=context.embeds, attention_mask=context.mask, output_hidden_states=True
        ).hidden_states
    perceptual, mask = context.perceptual.numpy(), context.mask.numpy()
    behind = mask & (np.cumsum(perceptual, axis=1) > 0) & ~perceptual
    for text, where in (("said", context.supervised.numpy()), ("after", behind)):
        report, failed = measure(bridge, source, "tiny", text=text, batch_size=5)  # type: ignore[arg-type]
        assert failed == ()
        curve = report.curve("ima_matched", "image", "text")
        assert curve.depths == (0, *range(1, len(bridge.llm.layers) + 1))
        for depth in curve.depths[:-1]:  # transformers' last state has gone through the final norm
            values = states[depth].detach().double().numpy()
            pooled = [
                [row[each].mean(axis=0) for row, each in zip(values, of, strict=True)] for of in (perceptual, where)
            ]
            cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(*pooled, strict=True)]
            assert curve.values[depth].value == pytest.approx(np.mean(cosines), abs=1e-5)


def test_sites_inside_blocks_are_what_their_modules_make(bridge: Bridge, source: Source) -> None:
    """Taken from transformers' own modules by hooks of the test."""
    batch = bridge.collate()([told(source[index]) for index in range(len(source))])
    context, found = bridge.spliced(batch, "right"), dict[str, list[torch.Tensor]]()
    handles = []
    for block in bridge.llm.layers:
        for name, part in (("ffn", "mlp"), ("attention_norm", "input_layernorm")):
            keep = found.setdefault(name, [])
            module = block.get_submodule(part)
            handles.append(module.register_forward_hook(lambda _, __, output, keep=keep: keep.append(output)))
    with torch.no_grad():
        bridge.llm.model(inputs_embeds=context.embeds, attention_mask=context.mask)
    for handle in handles:
        handle.remove()
    report, _ = measure(bridge, source, "tiny", sites=["ffn", "attention_norm", "final"])
    masks = [context.perceptual.numpy(), context.supervised.numpy()]
    for name, states in found.items():
        curve = report.curve("ima_matched", "image", "text", site=name)
        cones = report.curve("cone", "text", site=name)
        assert curve.depths == cones.depths == tuple(range(1, len(states) + 1))
        for place, each in enumerate(states):
            values = each.double().numpy()
            pooled = [[row[at].mean(axis=0) for row, at in zip(values, mask, strict=True)] for mask in masks]
            units = [np.array([x / np.linalg.norm(x) for x in side]) for side in pooled]
            assert curve.values[place].value == pytest.approx((units[0] * units[1]).sum(1).mean(), abs=1e-5)
            table = units[1] @ units[1].T
            assert cones.values[place].value == pytest.approx(table[~np.eye(len(table), dtype=bool)].mean(), abs=1e-5)
    assert report.curve("norm", "text", site="final").depths == (len(bridge.llm.layers),)
    assert report.curve("ima", "image", "text") == measure(bridge, source, "tiny")[0].curve("ima", "image", "text")


def test_batches_do_not_matter(bridge: Bridge, source: Source) -> None:
    one, other = (measure(bridge, source, "tiny", batch_size=size)[0] for size in (3, 16))
    for first, second in zip(one.curves, other.curves, strict=True):
        for a, b in zip(first.values, second.values, strict=True):
            assert a.value == pytest.approx(b.value, abs=1e-5)


def test_every_score_has_a_definition_and_a_cost(bridge: Bridge, source: Source) -> None:
    report, _ = measure(bridge, source, "tiny", optional=OPTIONAL, stored=12)
    parts: list[Part] = [*report.curves, *report.scalars, *report.matrices, *report.histograms, *report.words]
    scores = {each.score for each in parts if not isinstance(each, View)}
    assert scores == {*report.definitions}
    assert {"default", "storing", *OPTIONAL} <= {*report.cost}
    assert report.about["samples"] == len(source)
    assert report.about["pairs stored"] == "12 of image"
    neighbours = report.curve("mutual_knn", "image", "text")
    assert neighbours.chance[0] == pytest.approx(6 / 11)
    assert {view.method.split(",")[0].split(":")[0] for view in report.views} == {"PCA", "t-SNE"}


def test_alike_pictures_have_cosines_of_one(bridge: Bridge) -> None:
    """Samples that are nearly one have pairs that hardly differ: matched, all and other pairs agree, the cone is at 1.
    Of one medium alone there are no other pairs, and no intervals."""

    class Same:
        name = "same"

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int, /) -> Sample:
            from PIL import Image

            picture = Image.new("RGB", (32, 32), "red")
            picture.putpixel((0, 0), (255 - (index if differ else 0), 0, 0))
            media = Medium("image", picture)
            return Sample(str(index), conversation(("user", (media, "what?")), ("assistant", ("a red square",))))

    differ = False
    curve = measure(bridge, Same(), "same")[0].curve("ima_matched", "image", "text")
    assert all(np.isfinite(each.value) and np.isnan([each.low, each.high]).all() for each in curve.values)
    assert all(np.isnan(each.value) for each in curve.control)
    differ = True
    report, _ = measure(bridge, Same(), "same", optional=["tokens"], stored=12)
    for group in ("image", "text"):
        assert all(each.value == pytest.approx(1, abs=1e-3) for each in report.curve("cone", group).values)
    for name in ("ima", "ima_tokens", "ima_median", "ima_max"):
        every, matched = (report.curve(f"{name}{pairs}", "image", "text") for pairs in ("", "_matched"))
        for one, other, control in zip(every.values, matched.values, matched.control, strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-3)
            assert control.value == pytest.approx(other.value, abs=1e-3)


def test_what_cannot_be_used_is_left_out_and_told(bridge: Bridge, folder: Path, tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", 12, distinct=True)
    (data / "003.png").write_bytes(b"no picture")
    rows = (data / "metadata.jsonl").read_text().splitlines()
    silent = json.loads(rows[5]) | {"text": ""}
    rows[5] = json.dumps(silent)
    (data / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    report, failed = measure(bridge, open_source(str(data), None, task="caption"), "tiny", batch_size=4)
    assert len(failed) == 2
    assert report.about["samples"] == 10
    assert run(["align", str(folder / "bridge"), str(data), "--json", str(tmp_path / "a.json")]) == 1
    assert json.loads((tmp_path / "a.json").read_text())["bridges"][0]["about"]["samples"] == 10


def test_samples_without_media_or_answers_are_refused() -> None:
    with pytest.raises(DataError, match="expected a medium, found none"):
        told(Sample("x", conversation(("user", ("hello",)), ("assistant", ("hi",)))))
    medium = Medium("image", b"")
    with pytest.raises(DataError, match="expected an answer, a caption or references"):
        told(Sample("x", conversation(("user", (medium, "what?")))))
    answered = told(Sample("x", conversation(("user", (medium, "what?"))), truth={"answers": ["red", "pink"]}))
    assert answered.messages[-1].content == ("red",)


def test_few_samples_have_no_intervals(bridge: Bridge, source: Source) -> None:
    few, enough = (
        measure(bridge, source, "tiny", limit=limit)[0].curve("ima_matched", "image", "text") for limit in (9, 10)
    )
    assert all(np.isfinite(each.value) and np.isnan([each.low, each.high]).all() for each in few.values)
    assert all(each.low < each.value < each.high for each in enough.values)


def test_too_few_pairs_for_optional_scores(bridge: Bridge, source: Source) -> None:
    with pytest.raises(
        DataError, match="expected at least 10 pairs of image and text, each of another medium, to score, found 4"
    ):
        measure(bridge, source, "tiny", optional=["kernels"], limit=4)


def test_the_verb_writes_all_it_is_asked_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--{kind}={tmp_path / f'out.{kind}'}" for kind in ("json", "csv", "html")]
    bridge = str(folder / "bridge")
    command = ["align", bridge, bridge, str(folder / "data"), "--score", "neighbours", "--score", "mir", *files]
    assert run([*command, "--plot", str(tmp_path / "plots"), "--stride", "2", "--score", "lens"]) == 0
    said = capsys.readouterr().out
    assert "bridge (2)" in said
    assert "mutual nearest neighbours" in said
    assert "change over 2 blocks before (consecutive_2)" in said
    assert "consecutive_1" not in said
    assert "likeliest words of bridge (1)" in said
    told_json = json.loads((tmp_path / "out.json").read_text())
    assert [each["bridge"] for each in told_json["bridges"]] == ["bridge (1)", "bridge (2)"]
    assert told_json["definitions"]["ima"]["formula"] == "1/N² Σ_ij cos(P̄_i, T̄_j)"
    assert (tmp_path / "out.html").read_text().startswith("<!")
    assert len((tmp_path / "out.csv").read_text().splitlines()) > 100
    assert len([*(tmp_path / "plots").glob("*.png")]) > 10


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["BRIDGE"], "expected bridges and then a data set"),
        (["BRIDGE", "nowhere"], "nowhere"),
        (["nowhere", "DATA"], "nowhere"),
        (["BRIDGE", "DATA", "--html", "FOLDER"], "expected a file to write, found a folder"),
        (["BRIDGE", "DATA", "--limit", "5", "--score", "cka"], "cka"),
        (["BRIDGE", "DATA", "--limit", "5", "--score", "mir"], "expected at least 10 pairs"),
        (["BRIDGE", "DATA", "--site", "middle"], "middle"),
        (["BRIDGE", "DATA", "--limit", "5", "--score", "weights"], "expected at least 10 pairs"),
        (["BRIDGE", "DATA", "--json", "same.out", "--csv", "same.out"], "expected a file of its own"),
        (["BRIDGE", "DATA", "--html", "a" * 300], "file name too long"),
        (["b" * 5000, "DATA"], "file name too long"),
        (["BRIDGE", "DATA", "--stride", "99"], "--stride: expected at most the 2 blocks of the LLM, found 99"),
        (["BRIDGE", "DATA", "--stored", "5", "--score", "pca"], "or store more of them (--stored)"),
        (["", "DATA"], "expected a bridge, found an empty name"),
        (["BRIDGE", ""], "expected a data set, found an empty name"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    names = {"BRIDGE": str(folder / "bridge"), "DATA": str(folder / "data"), "FOLDER": str(tmp_path)}
    assert run(["align", *(names.get(each, each) for each in arguments)]) == 2
    assert line in capsys.readouterr().err
