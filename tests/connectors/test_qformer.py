"""The Q-Former against transformers', pass by pass; what sees what; nothing changes by being kept or padded."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    DynamicCache,
)

from mmbridge.connectors.base import Instructions, Words
from mmbridge.connectors.config import ConnectorConfig, QFormerConfig
from mmbridge.connectors.qformer import QFormer, QFormerOutput, QFormerReading
from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.errors import RecipeError
from tests.connectors.qformers import FEATURES, KEY, QUERIES, WIDTH, bert, blip2, instructblip, pictures, qformer, text

RAGGED = (16, 3, 9)


def weighted(*outputs: Tensor) -> Tensor:
    """A scalar that every number of the outputs has its own part in."""
    draw = torch.Generator().manual_seed(7)
    return torch.stack([(each * torch.randn(each.shape, generator=draw)).sum() for each in outputs]).sum()


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5


def assert_same_gradients(ours: nn.Module, theirs: nn.Module, inputs: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Of every parameter that took part, and of inputs. Two parameters are the same one if all their numbers are.

    A bias of keys adds the same to all that a softmax compares: its gradient is zero but for rounding.
    """
    others = [each for each in theirs.parameters() if each.grad is not None]
    pairs = [*inputs]
    for each in ours.parameters():
        if each.grad is not None:
            (twin,) = (one for one in others if one.numel() == each.numel() and torch.equal(one.view_as(each), each))
            pairs.append((each, twin))
    for own, other in pairs:
        assert own.grad is not None
        assert other.grad is not None
        apart = (own.grad - other.grad.view_as(own)).norm()
        assert apart <= 1e-4 * other.grad.norm() + 1e-5
    assert sum(float(own.grad.norm()) > 1e-3 for own, _ in pairs if own.grad is not None) > 0.8 * len(pairs)
    return len(pairs)


def leaves(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same twice, each to have a gradient of its own."""
    return values.clone().requires_grad_(), values.clone().requires_grad_()


@pytest.mark.proof("qformer", against="transformers' Blip2QFormerModel, outputs and gradients")
@pytest.mark.parametrize("lengths", [(16, 16, 16), RAGGED], ids=["full", "ragged"])
def test_queries_alone(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    theirs = blip2(tmp_path)
    ours = qformer(text=None, normalise_features=False, init=str(tmp_path))
    values, mask = pictures(*lengths)
    mine, other = leaves(values)
    found = ours.read("queries", ours.image(mine, mask)).queries
    assert found is not None
    expected = theirs.qformer(
        query_embeds=theirs.query_tokens.expand(3, -1, -1), encoder_hidden_states=other, encoder_attention_mask=mask
    ).last_hidden_state
    assert_near(found, expected)
    torch.autograd.backward(weighted(found))
    torch.autograd.backward(weighted(expected))
    count = assert_same_gradients(ours, theirs, [(mine, other)])
    assert count == 1 + len(list(ours.parameters()))


@pytest.mark.proof("qformer", against="transformers' Blip2ForImageTextRetrieval, with text and text alone")
def test_queries_and_text(tmp_path: Path) -> None:
    """Views of one length: with text as well, its class takes no ragged ones."""
    theirs = blip2(tmp_path, text=True)
    ours = qformer(normalise_features=False, init=str(tmp_path))
    values, mask = pictures(9, 9, 9)
    (ids, real), (mine, other) = text(8, 2, 5), leaves(values)
    both, alone = ours.read("both", ours.image(mine, mask), ids, real), ours.read("text", ids=ids, text_mask=real)
    queries = theirs.query_tokens.expand(3, -1, -1)
    expected = theirs.qformer(
        query_embeds=theirs.embeddings(ids, query_embeds=queries),
        query_length=QUERIES,
        attention_mask=torch.cat([torch.ones(3, QUERIES, dtype=torch.bool), real], dim=1),
        encoder_hidden_states=other,
    ).last_hidden_state
    said = theirs.qformer(query_embeds=theirs.embeddings(ids), query_length=0, attention_mask=real).last_hidden_state
    assert both.queries is not None
    assert both.text is not None
    assert alone.text is not None
    assert alone.queries is None
    found = both.queries, both.text[real], alone.text[real]
    hoped = expected[:, :QUERIES], expected[:, QUERIES:][real], said[real]
    for one, another in zip(found, hoped, strict=True):
        assert_near(one, another)
    torch.autograd.backward(weighted(*found))
    torch.autograd.backward(weighted(*hoped))
    count = assert_same_gradients(ours, theirs, [(mine, other)])
    assert count == 1 + len(list(ours.parameters()))


@pytest.mark.proof("qformer", against="transformers' Blip2ForImageTextRetrieval: its matching and contrastive logits")
def test_a_whole_model(tmp_path: Path) -> None:
    """From pixels: our norm of features in place of its tower's, here of features whose variance outweighs epsilons."""
    theirs = blip2(tmp_path, text=True)
    ours = qformer(init=str(tmp_path))
    seen: list[Tensor] = []
    theirs.vision_model.encoder.layers[-1].mlp.register_forward_hook(lambda _, __, out: 100 * out)
    theirs.vision_model.post_layernorm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    ids, real = text(6, 3)
    with torch.no_grad():
        asked = theirs(pixels, ids, real, use_image_text_matching_head=True).logits_per_image
        compared = theirs(pixels, ids, real).logits_per_image
        values = next(each for each in seen if each.ndim == 3)
        image = ours.image(values, torch.ones(values.shape[:2], dtype=torch.bool))
        both, looked = ours.read("both", image, ids, real), ours.read("queries", image)
        said = ours.read("text", ids=ids, text_mask=real)
    assert both.queries is not None
    assert looked.queries is not None
    assert said.text is not None
    assert_near(theirs.itm_head(both.queries).mean(1), asked)
    shown = nn.functional.normalize(theirs.vision_projection(looked.queries), dim=-1)
    told = nn.functional.normalize(theirs.text_projection(said.text[:, 0]), dim=-1)
    assert_near((shown @ told.T).amax(1), compared)


@pytest.mark.proof("qformer", against="transformers' InstructBlipQFormerModel, outputs and gradients")
def test_queries_that_read_an_instruction(tmp_path: Path) -> None:
    theirs = instructblip(tmp_path)
    ours = qformer(normalise_features=False, init=str(tmp_path))
    values, mask = pictures(*RAGGED)
    (ids, real), (mine, other) = text(4, 8, 1), leaves(values)
    grids = tuple(Grid(1, 1, length) for length in RAGGED)
    found = ours.instructed(Features(mine, mask, grids, (None,) * 3), Instructions((0, 1, 2), ids, real))
    expected = theirs.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(3, QUERIES, dtype=torch.bool), real], dim=1),
        query_embeds=theirs.query_tokens.expand(3, -1, -1),
        encoder_hidden_states=other,
        encoder_attention_mask=mask,
    ).last_hidden_state[:, :QUERIES]
    assert_near(found.values, expected)
    assert found.mask.all()
    assert (found.grids, found.prefix) == ((Grid(1, 1, QUERIES),) * 3, 0)
    torch.autograd.backward(weighted(found.values))
    torch.autograd.backward(weighted(expected))
    count = assert_same_gradients(ours, theirs, [(mine, other)])
    assert count == 1 + len(list(ours.parameters()))


@pytest.mark.proof("qformer", against="transformers' BertModel, on text alone")
def test_text_alone_is_bert(tmp_path: Path) -> None:
    theirs = bert(tmp_path)
    ours = qformer(init=str(tmp_path))
    ids, real = text(8, 2, 5)
    found = ours.read("text", ids=ids, text_mask=real).text
    assert found is not None
    assert_near(found[real], theirs(ids, attention_mask=real).last_hidden_state[real])


@pytest.mark.proof(
    "qformer", against="transformers' BertModel as a decoder, its text reading the queries' keys and values"
)
def test_causal_text_is_a_decoder(tmp_path: Path) -> None:
    """The queries' keys and values stand where a decoder's past does; positions go on being the text's own."""
    theirs = bert(tmp_path, is_decoder=True)
    ours = qformer(init=str(tmp_path))
    ids, real = text(8, 2, 5)
    kept = ours.read("queries", ours.image(*pictures(*RAGGED))).kept
    assert kept is not None
    found = ours.read("causal", ids=ids, text_mask=real, kept=kept).text
    assert found is not None
    past = DynamicCache()
    for index, pair in enumerate(kept.blocks):
        assert pair is not None
        past.update(*pair, index)
    expected = theirs(
        ids,
        attention_mask=torch.cat([torch.ones(3, QUERIES, dtype=torch.bool), real], dim=1),
        position_ids=torch.arange(8)[None],
        past_key_values=past,
    ).last_hidden_state
    assert_near(found[real], expected[real])


def outputs(found: QFormerOutput) -> list[Tensor]:
    return [each for each in (found.queries, found.text) if each is not None]


def passes(model: QFormer, values: Tensor, mask: Tensor, ids: Tensor, real: Tensor) -> list[Tensor]:
    """Everything a Q-Former can be asked: what is real of each reading."""
    image = model.image(values, mask)
    seen = model.read("queries", image)
    found = outputs(seen)
    for reading in ("text", "both", "causal"):
        said = model.read(reading, image if reading != "text" else None, ids, real)
        assert said.text is not None
        found += [said.text[real]] + ([] if said.queries is None else [said.queries])
    generated = model.read("causal", ids=ids, text_mask=real, kept=seen.kept).text
    assert generated is not None
    return [*found, generated[real]]


def test_padding_changes_nothing() -> None:
    """Neither outputs nor gradients, whatever stands there; rows are what each is alone."""
    model = qformer()
    (values, mask), (ids, real) = pictures(*RAGGED), text(2, 8, 5)

    def outcome(filler: float, word: int) -> list[Tensor]:
        found = passes(model, values.masked_fill(~mask[..., None], filler), mask, ids.where(real, word), real)
        return [*found, *torch.autograd.grad(weighted(*found), list(model.parameters()))]

    reference = outcome(0.0, 1)
    for one, other in zip(reference, outcome(float("nan"), 9), strict=True):
        assert torch.equal(one, other)
    for row, (seen, said) in enumerate(zip(mask.sum(1), real.sum(1), strict=True)):
        here = slice(row, row + 1)
        alone = passes(model, values[here, :seen], mask[here, :seen], ids[here, :said], real[here, :said])
        queries = [each for each in passes(model, values, mask, ids, real) if each.ndim == 3]
        for one, other in zip([each for each in alone if each.ndim == 3], queries, strict=True):
            assert torch.allclose(one[0], other[row], atol=1e-5)
        first = int(real[:row].sum())
        texts = [each for each in reference[: len(alone)] if each.ndim == 2]
        for one, other in zip([each for each in alone if each.ndim == 2], texts, strict=True):
            assert torch.allclose(one, other[first : first + len(one)], atol=1e-5)


def changed(reading: QFormerReading, *, image: bool, word: int) -> tuple[list[bool], list[bool]]:
    """Which queries and which of six words come out otherwise when a view, or a word, becomes another."""
    model = qformer()
    (values, mask), (ids, real) = pictures(16), text(6)
    others = ids.clone()
    others[0, word] = ids[0, word] % 7 + 1
    assert image or not torch.equal(ids, others)
    before = model.read(reading, model.image(values, mask) if reading != "text" else None, ids, real)
    after = model.read(
        reading,
        model.image(values + image, mask) if reading != "text" else None,
        ids if image else others,
        real,
    )

    def compared(one: Tensor | None, other: Tensor | None) -> list[bool]:
        return [] if one is None or other is None else [*(one != other).any(-1)[0].tolist()]

    return compared(before.queries, after.queries), compared(before.text, after.text)


def test_what_sees_what() -> None:
    """By perturbation. Causal: queries see no text, a word no later one; all see the view, words through queries."""
    for word in range(6):
        assert changed("causal", image=False, word=word) == ([False] * QUERIES, [False] * word + [True] * (6 - word))
        assert changed("both", image=False, word=word) == ([True] * QUERIES, [True] * 6)
        assert changed("text", image=False, word=word) == ([], [True] * 6)
    for reading in ("causal", "both"):
        assert changed(reading, image=True, word=0) == ([True] * QUERIES, [True] * 6)


def test_kept_queries_are_as_good_as_read_anew() -> None:
    """Text after the queries' kept keys and values, against one pass over both: outputs and gradients."""
    model = qformer()
    (values, mask), (ids, real) = pictures(*RAGGED), text(2, 8, 5)

    def kept() -> Tensor | None:
        return model.read("causal", None, ids, real, model.read("queries", model.image(values, mask)).kept).text

    def anew() -> Tensor | None:
        return model.read("causal", model.image(values, mask), ids, real).text

    results = []
    for way in (kept, anew):
        found = way()
        assert found is not None
        gradients = torch.autograd.grad(weighted(found[real]), list(model.parameters()), materialize_grads=True)
        results.append([found[real], *gradients])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_one_projection_serves_all_passes() -> None:
    """Rows taken of kept keys and values, against the same rows' features projected anew: outputs and gradients."""
    model = qformer()
    (values, mask), (ids, real) = pictures(*RAGGED), text(2, 8, 5, 1, 3)
    rows = torch.tensor([2, 0, 1, 1, 0])

    def shared() -> Iterable[Tensor]:
        image = model.image(values, mask)
        seen = model.read("queries", image)
        assert seen.kept is not None
        both = model.read("both", image.of(rows), ids, real)
        said = model.read("causal", ids=ids, text_mask=real, kept=seen.kept.of(rows))
        return [*outputs(seen), *outputs(both), *outputs(said)]

    def apart() -> Iterable[Tensor]:
        seen = model.read("queries", model.image(values, mask))
        both = model.read("both", model.image(values[rows], mask[rows]), ids, real)
        again = model.read("queries", model.image(values[rows], mask[rows]))
        said = model.read("causal", ids=ids, text_mask=real, kept=again.kept)
        return [*outputs(seen), *outputs(both), *outputs(said)]

    results = []
    for way in (shared, apart):
        found = [*way()]
        results.append([*found, *torch.autograd.grad(weighted(*found), list(model.parameters()))])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    assert model.image(values, mask).of(rows).rows == len(rows)


def test_a_view_without_a_real_token_has_no_real_query() -> None:
    model = qformer(text=None)
    values, mask = pictures(16, 16)
    mask[1] = False
    values[1] = float("nan")
    found = model(Features(values, mask, (Grid(1, 4, 4),) * 2, (None,) * 2))
    assert found.mask.tolist() == [[True] * QUERIES, [False] * QUERIES]
    gradients = torch.autograd.grad(found.values[found.mask].sum(), list(model.parameters()))
    assert all(bool(each.isfinite().all()) for each in gradients)


def test_dropout_is_of_training_alone() -> None:
    model, (values, mask) = qformer(text=None, dropout=0.1), pictures(16)
    image = model.image(values, mask)

    def again() -> bool:
        one, other = (outputs(model.read("queries", image))[0] for _ in range(2))
        return torch.equal(one, other)

    assert not again()
    assert not model.eval().training
    assert again()
    model.train()
    assert not again()
    model.requires_grad_(False).train()
    assert again()


def test_features_in_half_precision_are_read_in_full() -> None:
    model, (values, mask) = qformer(text=None), pictures(16)
    features = Features(values.bfloat16(), mask, (Grid(1, 4, 4),), (None,))
    assert model(features).values.dtype is torch.float32
    assert model.bfloat16()(features).values.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"text": None}, f"{KEY}.text: expected a text branch, found none; set text to {{}}"),
        ({}, f"{KEY}.text.positions: expected texts of at most 20 tokens, found 21"),
    ],
)
def test_text_that_cannot_be_read(changes: dict[str, Any], line: str) -> None:
    ids, real = text(21)
    with pytest.raises(RecipeError) as caught:
        qformer(**changes).read("text", ids=ids, text_mask=real)
    assert str(caught.value) == line


def count(width: int | None = None, features: int = 1408, **changes: Any) -> int:
    """Parameters at BLIP-2's sizes, by default on ViT-g; of a connector to an LLM of a width, or of the Q-Former."""
    facts = EncoderFacts(features, Grid(1, 16, 16), prefix=1)
    with torch.device("meta"):
        if width is None:
            model: Any = QFormerConfig.model_validate(changes).build(facts, key=KEY)
        else:
            config = {"encoders": ["g"], "resampler": {"kind": "qformer"} | changes, "projector": {"kind": "linear"}}
            model = ConnectorConfig.model_validate(config).build([facts], Words(width))
    return sum(each.numel() for each in model.parameters())


@pytest.mark.proof("qformer", against="trainable parameters of six models in BLIP-2's table 2: 103 M to 108 M")
@pytest.mark.parametrize(
    ("features", "width", "millions"),
    [(1024, 2560, 104), (1408, 2560, 107), (1408, 4096, 108), (1024, 2048, 103), (1408, 2048, 107)],
    ids=["L, OPT-2.7B", "g, OPT-2.7B", "g, OPT-6.7B and FlanT5-XXL", "L, FlanT5-XL", "g, FlanT5-XL"],
)
def test_as_many_parameters_as_published(features: int, width: int, millions: int) -> None:
    """Stage 2: Q-Former without text, queries, norm of features, one linear map."""
    assert round(count(width, features) / 1e6) == millions


def test_as_many_parameters_as_transformers() -> None:
    """To the last one. With text BLIP-2's paper counts 188 M: of the released code's parts there are 185.7 M here, and
    with its three heads (contrastive, matching, and generation, whose output weights are the words') 186.7 M."""
    text = {"vocabulary": 30523}
    sizes: dict[str, Any] = {"vocab_size": 30523, "use_qformer_text_input": True}
    with torch.device("meta"):
        bare = Blip2QFormerModel(Blip2QFormerConfig())
        whole = Blip2ForImageTextRetrieval(Blip2Config(qformer_config=sizes))
    queries = 32 * 768
    assert count(normalise_features=False) == sum(each.numel() for each in bare.parameters()) + queries == 105_162_240
    parts = (whole.qformer, whole.embeddings, whole.vision_model.post_layernorm)
    theirs = sum(each.numel() for part in parts for each in part.parameters()) + queries
    assert count(text=text) == theirs == 185_684_736 + 2 * 1408
    heads = (whole.vision_projection, whole.text_projection, whole.itm_head)
    generating = 768 * 768 + 3 * 768 + 30523
    assert (
        round((theirs + sum(each.numel() for part in heads for each in part.parameters()) + generating) / 1e5) == 1867
    )


def test_names_are_readable() -> None:
    names = {name for name, _ in qformer(layers=2, text=None).named_parameters()}
    assert {
        "embeddings.queries",
        "feature_norm.weight",
        "blocks.0.cross.key.weight",
        "blocks.1.query_feed.up.bias",
    } < names
    assert not any(name.startswith(("blocks.1.cross", "embeddings.words")) or "text" in name for name in names)
    drawn = qformer_as_drawn()
    assert abs(float(drawn["embeddings.queries"].std()) - 0.02) < 2e-3
    assert abs(float(drawn["blocks.0.cross.value.weight"].std()) - 0.02) < 2e-3
    assert not drawn["blocks.0.cross.value.bias"].any()
    assert (drawn["blocks.0.cross.norm.weight"] == 1).all()


def qformer_as_drawn() -> dict[str, Tensor]:
    config = QFormerConfig.model_validate({"layers": 1, "width": WIDTH * 2, "heads": 2})
    model: Any = config.build(EncoderFacts(FEATURES, Grid(1, 4, 4)), key=KEY)
    return dict(model.state_dict())
