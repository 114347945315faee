"""A Q-Former that reads instructions inside a bridge: against transformers' InstructBLIP, and what depends on what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BlipImageProcessor

from mmbridge.bridge import Bridge
from mmbridge.connectors.config import XFormerConfig
from mmbridge.connectors.qformer import QFormer
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Message, Sample, conversation
from mmbridge.llm import packing
from mmbridge.objectives.weighted import WeightedObjectives
from tests.connectors.qformers import SMALL, instructblip
from tests.tiny_bridge import tiny_recipe, tiny_stage

WORDS, LENGTH = 486, 12
TEXT = {"vocabulary": WORDS, "positions": 32, "length": LENGTH, "instruction": True}
ASKED = ("What colour is it?", "Is there a square? Describe the image in one short sentence.")
ANSWERS = ("red", "It is a large red circle")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> tuple[Path, Any]:
    """InstructBLIP around the tiny Llama."""
    tiny_recipe(parts)
    folder = tmp_path_factory.mktemp("instructblip")
    llm: Any = AutoModelForCausalLM.from_pretrained(parts / "llm")
    model = instructblip(folder, llm=llm, vocab_size=WORDS, max_position_embeddings=32)
    BlipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder, model


def bridge_of(parts: Path, folder: Path, *objectives: str, **changes: Any) -> Bridge:
    """Encoder, Q-Former and projection of a checkpoint, and the tiny LLM."""
    resampler = SMALL | {"kind": "qformer", "dropout": 0.0, "init": str(folder), "text": TEXT} | changes
    made = Bridge(
        tiny_recipe(
            parts,
            tiny_stage(objectives=[{"kind": kind} for kind in objectives or ["next_token"]]),
            encoders={"image": {"kind": "transformers", "path": str(folder), "layer": -1, "tokens": "all"}},
            connectors={"image": {"encoders": ["image"], "resampler": resampler, "projector": {"kind": "linear"}}},
        )
    )
    made.initialise()
    return made


@pytest.fixture
def bridge(parts: Path, theirs: tuple[Path, Any]) -> Bridge:
    folder, model = theirs
    made = bridge_of(parts, folder)
    projector: Any = made.connectors["image"].get_submodule("projector")
    projector.linear.load_state_dict(model.language_projection.state_dict())
    return made


def picture(seed: int = 0) -> Medium:
    image = Image.effect_mandelbrot((40, 32), (-2 + seed, -1.5, 1, 1.5), 100).convert("RGB")
    return Medium("image", image, f"picture {seed}")


def asked(medium: Medium, *questions: str, answers: Sequence[str] = ANSWERS) -> list[Sample]:
    return [
        Sample(question, conversation(("user", (medium, question)), ("assistant", (answer,))))
        for question, answer in zip(questions, answers, strict=False)
    ]


def tokens(bridge: Bridge, samples: Sequence[Sample]) -> list[Tensor]:
    """Of the only medium of each sample."""
    return [each for (each,) in bridge.perceive(bridge.collate()(samples)).tokens]


@pytest.mark.proof("qformer", against="transformers' InstructBlipForConditionalGeneration, from pixels to logits")
@torch.no_grad()
def test_a_bridge_is_instructblip(bridge: Bridge, theirs: tuple[Path, Any]) -> None:
    """Two instructions of unequal length about one image and one about another, in one padded batch."""
    first, second = picture(0), picture(1)
    samples = [*asked(first, *ASKED), *asked(second, ASKED[0])]
    batch, model = bridge.collate()(samples), theirs[1]
    assert (batch.media, batch.looked) == (((0,), (0,), (1,)), ((0,), (1,), (2,)))
    bridge.llm.packing = None
    output = bridge(batch)
    context = output.context

    looks = batch.looks["image"].instructions["image"]
    assert {len(each) for each in looks} == {LENGTH, len(looks[0])} != {LENGTH}
    told = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in looks], batch_first=True)
    processor = BlipImageProcessor(size={"height": 28, "width": 28})
    shown: Any = [first.source, first.source, second.source]
    model.config.image_token_id = min({*range(WORDS)} - {*context.ids.flatten().tolist()})
    found = model(
        pixel_values=processor(images=shown, return_tensors="pt")["pixel_values"],
        qformer_input_ids=told,
        qformer_attention_mask=torch.arange(told.shape[1]) < torch.tensor([[len(each)] for each in looks]),
        input_ids=context.ids.masked_fill(context.perceptual, model.config.image_token_id),
        attention_mask=context.mask,
    )
    queries = found.qformer_outputs.last_hidden_state[:, : SMALL["queries"]]
    expected = model.language_projection(queries)
    for (own,), other in zip(bridge.perceive(batch).tokens, expected, strict=True):
        assert (own - other).abs().max() <= 1e-5
    assert (expected[0] - expected[1]).abs().max() > 0.1
    logits = found.logits.flatten(0, 1)[torch.as_tensor(context.predicting)]
    assert (output.logits - logits).abs().max() <= 1e-4
    assert logits.abs().max() > 1


@torch.no_grad()
def test_tokens_depend_on_the_instruction_and_not_on_the_answer(bridge: Bridge) -> None:
    medium = picture()
    one, other = tokens(bridge, asked(medium, *ASKED))
    assert not torch.allclose(one, other, atol=1e-2)
    assert_close(tokens(bridge, asked(medium, ASKED[0], answers=["something else"]))[0], one)
    again, same = tokens(bridge, asked(medium, ASKED[0], ASKED[0]))
    assert again.data_ptr() == same.data_ptr()
    assert_close(again, one)
    end = ASKED[1] + " More than it reads."
    assert_close(tokens(bridge, asked(medium, end))[0], other)


@torch.no_grad()
def test_each_medium_is_told_what_is_said_in_its_turn(bridge: Bridge) -> None:
    """The user's; what is asked later, what is answered and who else speaks do not matter."""
    first, second = picture(0), picture(1)
    alone = [tokens(bridge, asked(first, "one"))[0], tokens(bridge, asked(second, "two"))[0]]
    turns = conversation(
        ("system", ("Be brief.",)),
        ("user", (first, "one")),
        ("assistant", ("yes",)),
        ("user", ("And", second, " two")),
        ("assistant", ("no",)),
    )
    batch = bridge.collate()([Sample("both", turns)])
    found = bridge.perceive(batch).tokens[0]
    assert_close(found[0], alone[0])
    assert not torch.allclose(found[1], alone[1], atol=1e-3)
    assert_close(found[1], tokens(bridge, asked(second, "And two"))[0])
    shown = conversation(("system", ("See", first)), ("user", ("one",)), ("assistant", ("yes",)))
    assert_close(bridge.perceive(bridge.collate()([Sample("s", shown)])).tokens[0][0], alone[0])


@torch.no_grad()
def test_keys_and_values_of_an_image_are_made_once(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    image = QFormer.image

    def counted(self: QFormer, values: Tensor, mask: Tensor) -> Any:
        rows.append(len(values))
        return image(self, values, mask)

    monkeypatch.setattr(QFormer, "image", counted)
    bridge.perceive(bridge.collate()([*asked(picture(0), *ASKED), *asked(picture(1), ASKED[0])]))
    assert rows == [2]


def test_answers_are_of_the_tokens_that_training_sees(bridge: Bridge) -> None:
    """Asked or trained on, a question about an image reads the same; two questions in one batch are as each alone."""
    medium = picture()
    trained = tokens(bridge, asked(medium, *ASKED))
    conversations = [(Message("user", (medium, question)),) for question in ASKED]
    context = bridge.spliced(
        bridge.collate(training=False)([Sample(str(n), each) for n, each in enumerate(conversations)]), "left"
    )
    for row, perceptual, expected in zip(context.embeds, context.perceptual, trained, strict=True):
        assert_close(row[perceptual], expected)
    together = [answer.text for answer in bridge.generate(conversations, max_new_tokens=6)]
    assert together == [bridge.ask(medium, question, max_new_tokens=6).text for question in ASKED]
    assert bridge.caption(medium, ASKED[0], max_new_tokens=6).text == together[0]


def gradients(bridge: Bridge, batch: Batch) -> list[Tensor]:
    objectives = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)
    losses = objectives(batch, objectives.terms([batch]))
    parameters = list(bridge.connectors.parameters())
    return [losses.detach(), *torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)]


def test_packed_is_unpacked(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples share what they begin with up to a medium that they look at alike; losses and gradients stay."""
    monkeypatch.setitem(packing.CALL, "cpu", 0)
    medium = picture()
    repeated = [ASKED[0]] * 3 + [ASKED[1]] * 2
    said = ("red", "blue it is", "a green one", "yes", "no and more than that")
    batch = bridge.collate()(asked(medium, *repeated, answers=said))
    assert batch.looked == ((0,), (0,), (0,), (1,), (1,))
    bridge.llm.packing = None
    unpacked = gradients(bridge, batch)
    bridge.llm.packing = packing.Packing(bridge.llm)
    context = bridge(batch).context
    assert [tree.members for tree in context.trees] == [(0, 1, 2), (3, 4)]
    for own, other in zip(gradients(bridge, batch), unpacked, strict=True):
        assert (own - other).norm() <= 1e-4 * other.norm() + 1e-6


def test_pairs_are_of_media_and_what_is_said_of_them(parts: Path, theirs: tuple[Path, Any]) -> None:
    """Contrast, matching and grounded generation do not read the instruction; two looks are at one medium."""
    kinds, losses = ("itc", "itm", "itg"), list[Tensor]()
    for instruction in (False, True):
        text = TEXT | {"shared": 8, "instruction": instruction}
        made = bridge_of(parts, theirs[0], *kinds, text=text)
        samples = [*asked(picture(0), *ASKED), *asked(picture(1), ASKED[0], answers=["yellow"])]
        batch = made.collate()(samples)
        assert batch.media == ((0,), (0,), (1,))
        torch.manual_seed(0)
        losses.append(gradients(made, batch)[0])
    assert losses[0].shape == (3,)
    assert torch.equal(*losses)


def ran(bridge: Bridge, samples: Sequence[Sample]) -> list[str]:
    """The modules of the connectors that a batch runs, in their order."""
    found: list[str] = []
    named = [*bridge.connectors.named_modules()]
    hooks = [part.register_forward_hook(lambda *_, name=name: found.append(name)) for name, part in named]
    bridge(bridge.collate()(samples))
    for hook in hooks:
        hook.remove()
    return found


def test_a_batch_without_media_runs_the_same_modules(bridge: Bridge) -> None:
    alone = [Sample("alone", conversation(("user", ("Say yes.",)), ("assistant", ("Yes.",))))]
    without = ran(bridge, alone)
    assert without == ran(bridge, asked(picture(), ASKED[0]))
    assert "image.resampler.embeddings.words" in without
    loss, *rest = gradients(bridge, bridge.collate()(alone))
    assert loss.isfinite().all()
    assert all((each == 0).all() for each in rest)


def test_an_x_former_reads_no_instruction() -> None:
    problem = "qformer.text.instruction: only the queries of a qformer alone read it; leave it out"
    with pytest.raises(ValidationError, match=problem):
        XFormerConfig.model_validate({"qformer": {"text": {"instruction": True}}})
