"""The bridge in memory: what is routed where, and what users ask of it."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from mmbridge.answer import Answer
from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Message, Sample, conversation
from mmbridge.encoders.base import Features
from mmbridge.errors import DataError, MediaError, UserError
from mmbridge.llm.config import GenerationOptions
from mmbridge.llm.packing import CALL
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze
from tests.tiny import tiny_siglip
from tests.tiny_bridge import tiny_recipe, tiny_stage

MLP = {"kind": "mlp", "depth": 2}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    tiny_recipe(folder)
    tiny_siglip(folder / "siglip", image_size=32, patch_size=8)
    return folder


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return Bridge(tiny_recipe(parts))


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (40, 32), colour)


def shown(colour: str) -> Medium:
    return Medium("image", picture(colour), colour)


def mixed_batch(bridge: Bridge) -> Batch:
    """Two pictures with words between, none, and one."""
    turns: list[tuple[str | Medium, ...]] = [
        (shown("red"), "and", shown("blue"), "?"),
        ("hello",),
        (shown("blue"), "?"),
    ]
    samples = [Sample(str(i), conversation(("user", turn), ("assistant", ("ok",)))) for i, turn in enumerate(turns)]
    return bridge.collate()(samples)


def expected_tokens(bridge: Bridge, connector: str, colour: str) -> Tensor:
    """One picture through encoder and connector, called by hand."""
    names = bridge.recipe.connectors[connector].encoders
    features: list[Any] = [bridge.encoders[name].encode([bridge.prepare[name][1](picture(colour))]) for name in names]  # type: ignore[operator]
    values: Tensor = bridge.connectors[connector](*features).values[0]
    return values


def test_every_placeholder_gets_its_own_medium(bridge: Bridge) -> None:
    tokens = bridge.perceive(mixed_batch(bridge)).tokens
    assert [len(media) for media in tokens] == [2, 0, 1]
    for found, colour in zip([*tokens[0], *tokens[2]], ("red", "blue", "blue"), strict=True):
        assert found.shape == (16, 32)
        assert_close(found, expected_tokens(bridge, "image", colour))
    assert not torch.allclose(tokens[0][0], tokens[0][1])


def test_rows_of_a_mixed_batch_are_what_each_would_be_alone(bridge: Bridge) -> None:
    batch = mixed_batch(bridge)
    with torch.no_grad():
        together = bridge(batch)
        rows = together.context.supervised.sum(1).tolist()
        alone = [bridge(bridge.collate()([sample])) for sample in batch.samples]
    for found, one in zip(together.logits.split(rows), alone, strict=True):
        assert_close(found, one.logits, rtol=1e-4, atol=1e-4)


def test_several_connectors_read_a_medium_one_after_the_other(parts: Path) -> None:
    encoders = {
        "a": {"kind": "transformers", "path": str(parts / "clip")},
        "b": {"kind": "transformers", "path": str(parts / "siglip")},
    }
    connectors = {
        "both": {"encoders": ["a", "b"], "projector": MLP},
        "few": {
            "encoders": ["a"],
            "resampler": {"kind": "average_pool", "factor": 2},
            "projector": MLP,
            "end_token": True,
        },
    }
    bridge = Bridge(tiny_recipe(parts, encoders=encoders, connectors=connectors))
    batch = mixed_batch(bridge)
    calls = []
    bridge.encoders["a"].register_forward_hook(lambda *_: calls.append(1))
    tokens = bridge.perceive(batch).tokens
    assert len(calls) == 1  # two connectors read it
    assert tokens[2][0].shape == (16 + 4 + 1, 32)
    pieces = [expected_tokens(bridge, name, "blue") for name in ("both", "few")]
    assert_close(tokens[2][0], torch.cat(pieces))
    assert bridge.perceptual_tokens(batch) == [[21, 21], [], [21]]


def test_masked_tokens_never_reach_the_llm(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = bridge.encoders["image"]
    whole = encoder.encode

    def ragged(views: Any) -> Features:
        found: Features = whole(views)  # type: ignore[operator]
        mask = found.mask.clone()
        mask[0, 5:] = False
        return Features(found.values, mask, found.grids, found.tilings, found.prefix)

    full = bridge.perceive(mixed_batch(bridge)).tokens
    monkeypatch.setattr(encoder, "encode", ragged)
    tokens = bridge.perceive(mixed_batch(bridge)).tokens
    assert [len(each) for media in tokens for each in media] == [5, 16, 16]
    assert_close(tokens[0][0], full[0][0][:5])


def test_connectors_start_the_same_for_the_same_seed(parts: Path) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = Bridge(tiny_recipe(parts)).own_tensors()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second, other = Bridge(tiny_recipe(parts)).own_tensors(), Bridge(tiny_recipe(parts, seed=1)).own_tensors()
    assert all(torch.equal(each, second[name]) for name, each in first.items())
    assert not any(torch.equal(each, other[name]) for name, each in first.items())


def test_connectors_compute_in_float32_whatever_the_frozen_parts_do(parts: Path) -> None:
    encoders = {"image": {"kind": "transformers", "path": str(parts / "clip"), "dtype": "bfloat16"}}
    bridge = Bridge(tiny_recipe(parts, encoders=encoders, llm={"path": str(parts / "llm"), "dtype": "bfloat16"}))
    batch = mixed_batch(bridge)
    assert {each.dtype for media in bridge.perceive(batch).tokens for each in media} == {torch.float32}
    output = bridge(batch)
    assert (output.context.embeds.dtype, output.logits.dtype) == (torch.bfloat16, torch.bfloat16)
    output.logits.float().sum().backward()
    assert {each.grad.dtype for each in bridge.connectors.parameters() if each.grad is not None} == {torch.float32}


def test_captions_of_one_and_of_several(bridge: Bridge, tmp_path: Path) -> None:
    file, buffer = tmp_path / "red.png", BytesIO()
    picture().save(file)
    picture().save(buffer, "PNG")
    one = bridge.caption(file, max_new_tokens=4)
    assert isinstance(one, Answer)
    assert (one.perceptual_tokens, one.kept_tokens) == (16, 16)
    assert one.seconds > 0
    several = bridge.caption([str(file), buffer.getvalue(), picture(), Medium("image", file)], max_new_tokens=4)
    assert [answer.text for answer in several] == [one.text] * 4
    assert bridge.caption([], max_new_tokens=4) == []
    assert bridge.caption((file,), max_new_tokens=4)[0].text == one.text


def test_a_question_takes_all_media_and_streams_the_same(bridge: Bridge) -> None:
    media = [picture("red"), picture("blue")]
    answer = bridge.ask(media, "which?", max_new_tokens=6)
    assert answer.perceptual_tokens == 32
    assert "".join(bridge.stream(media, "which?", max_new_tokens=6)) == answer.text
    assert (
        bridge.generate([Message("user", (*map(shown, ("red", "blue")), "which?"))], max_new_tokens=6).text
        == answer.text
    )
    with pytest.raises(UserError, match="one beam"):
        list(bridge.stream(media, "which?", beams=2))


def test_messages_as_chat_templates_have_them(bridge: Bridge) -> None:
    raw = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "what?"}]}]
    one = bridge.generate(raw, max_new_tokens=4)
    two = bridge.generate([raw, [{"role": "user", "content": "hi"}]], max_new_tokens=4)
    assert one.text == bridge.ask(picture(), "what?", max_new_tokens=4).text == two[0].text
    assert [answer.perceptual_tokens for answer in two] == [16, 0]


def test_options_by_object_by_keyword_and_both(bridge: Bridge) -> None:
    texts = [
        bridge.caption(picture(), None, GenerationOptions(max_new_tokens=1)).text,
        bridge.caption(picture(), max_new_tokens=1).text,
        bridge.caption(picture(), None, GenerationOptions(max_new_tokens=9), max_new_tokens=1).text,
    ]
    assert len(set(texts)) == 1
    plain, asked = (bridge.caption(picture(), prompt, max_new_tokens=8).text for prompt in (None, "say it"))
    assert plain != asked
    with pytest.raises(UserError, match="beam: unknown key; did you mean 'beams'"):
        bridge.caption(picture(), beam=2)
    with pytest.raises(UserError, match="options of generation: beams need temperature 0"):
        bridge.caption(picture(), beams=2, temperature=1.0)


def test_generation_leaves_training_alone(bridge: Bridge) -> None:
    bridge.train()
    try:
        state = torch.get_rng_state()
        bridge.caption(picture(), max_new_tokens=3, temperature=1.0)
        list(bridge.stream(picture(), "?", max_new_tokens=3))
        assert torch.equal(torch.get_rng_state(), state)
        assert bridge.training
        assert bridge.connectors.training
        assert torch.is_grad_enabled()
    finally:
        bridge.eval()


def test_bad_media_are_one_line(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(MediaError, match=r"empty.png: expected an image, found an empty file"):
        bridge.caption([picture(), tmp_path / "empty.png"])
    with pytest.raises(MediaError, match="no such file"):
        bridge.ask("nowhere.png", "?")
    with pytest.raises(DataError, match="expected a path, bytes, a picture, an array of vectors or a Medium, found"):
        bridge.caption(3)  # type: ignore[call-overload]


def test_a_stage_can_have_its_own_template(parts: Path) -> None:
    bridge = Bridge(tiny_recipe(parts), "plain")
    sample = Sample("s", conversation(("user", (shown("red"), "ignored")), ("assistant", ("a red square",))))
    assert bridge.prompter.training(sample).text == "<image>a red square\n"
    assert bridge.recipe.llm.template is None


def test_packed_and_padded_training_give_the_same_gradients(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions about two pictures, and text alone: what a picture's samples begin with is computed once."""
    monkeypatch.setitem(CALL, "cpu", 0)
    pictures = [shown("red"), shown("blue")]
    asked: list[tuple[str | Medium, ...]] = [
        (pictures[0], "What is it?"),
        (pictures[1], "And this?"),
        (pictures[0], "What colour?"),
        ("hello",),
    ]
    said = ["a circle", "a square, it seems", "red", "hello"]
    samples = [
        Sample(str(n), conversation(("user", turn), ("assistant", (answer,))))
        for n, (turn, answer) in enumerate(zip(asked, said, strict=True))
    ]
    found = []
    for packed in (True, False):
        recipe = tiny_recipe(parts, tiny_stage(packing=packed))
        bridge = Bridge(recipe)
        unfreeze(bridge, recipe.stages[0], "stages.align", parts=["connectors."])
        engine = TorchEngine(bridge, recipe.stages[0], 1, "stages.align")
        batch = bridge.collate()(samples)
        assert bool(bridge(batch).context.trees) == packed
        loss = engine.losses(batch, engine.terms([batch]))
        engine.backward(loss)
        gradients = [each.grad.flatten() for each in bridge.connectors.parameters() if each.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    (loss, gradient), (padded_loss, padded_gradient) = found
    assert_close(loss, padded_loss, rtol=1e-5, atol=0)
    assert (gradient - padded_gradient).norm() <= 1e-5 * padded_gradient.norm()
