"""Alignment of a transformers LLaVA folder, from the hidden states that transformers' own class returns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbridge.alignment.measure import measure
from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.data.sample import Medium, Message, Sample
from tests.llava.checkpoints import Reference, noise
from tests.tiny import tiny_llava
from tests.tiny_bridge import tiny_data

SAID = ("red", "a large blue circle", "two stars and a ring", "no", "it is green, I think")


class Talks:
    """Twelve pictures of noise, each with a question and an answer."""

    name = "talks"

    def __init__(self) -> None:
        self.samples: Sequence[Sample] = [
            Sample(
                str(number),
                (
                    Message("user", (Medium("image", noise(36, 32, number), "noise"), "What do you see?")),
                    Message("assistant", (SAID[number % len(SAID)],)),
                ),
            )
            for number in range(12)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[index]


@pytest.mark.proof("ima", against="transformers' LlavaForConditionalGeneration, output_hidden_states")
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_scores_are_those_of_transformers_hidden_states(family: str, tmp_path: Path) -> None:
    folder, talks = tiny_llava(tmp_path / "llava", "clip", family), Talks()
    reference, bridge = Reference(folder), Bridge.from_pretrained(folder, device="cpu")
    inputs = reference.inputs([sample.messages for sample in talks.samples], side="right", opening=False)
    with torch.no_grad():
        states = reference.model(**inputs, output_hidden_states=True).hidden_states
    perceptual = (inputs["input_ids"] == reference.model.config.image_token_id).numpy()
    text = inputs["attention_mask"].bool().numpy() & (perceptual.cumsum(axis=1) > 0) & ~perceptual
    report, failed = measure(bridge, talks, "llava", text="after", strides=(1,), batch_size=5)
    assert failed == ()
    depths = len(bridge.llm.layers)
    assert len(states) == depths + 1 >= 3
    for depth in range(depths):  # transformers' last state has gone through the final norm
        values = states[depth].double().numpy()
        pooled = [
            np.stack([row[where].mean(axis=0) for row, where in zip(values, of, strict=True)])
            for of in (perceptual, text)
        ]
        first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in pooled)
        table, own = first @ second.T, np.eye(len(first), dtype=bool)
        expected = {
            ("ima", "image", "text"): table.mean(),
            ("ima_matched", "image", "text"): table[own].mean(),
            ("cone", "image"): (first @ first.T)[~own].mean(),
            ("cone", "text"): (second @ second.T)[~own].mean(),
            ("gap", "image", "text"): np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)),
        }
        for (score, *of), value in expected.items():
            assert report.curve(score, *of).values[depth].value == pytest.approx(float(value), abs=1e-5)
        control = report.curve("ima_matched", "image", "text").control[depth].value
        assert control == pytest.approx(float(table[~own].mean()), abs=1e-5)


def test_the_verb_reads_a_llava_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = tiny_llava(tmp_path / "llava", "siglip", "llama"), tiny_data(tmp_path / "data", 12, distinct=True)
    assert run(["align", str(folder), str(data), "--score", "lens", "--device", "cpu"]) == 0
    assert "alignment of llava" in capsys.readouterr().out
