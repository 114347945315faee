"""Items of the embedded world: what they are told as, who consumed them, and the vectors that follow."""

import numpy as np
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from mmbridge.data.config import ItemsConfig
from mmbridge.data.vectors import open_vectors
from mmbridge.data.world.catalogue import CONSUMED, PARTNERS, USERS, WIDTH, Catalogue, catalogue
from mmbridge.data.world.items import PAIRED, PROMPTS, ItemRecords, items
from mmbridge.data.world.language import parse_facts
from mmbridge.frozen import locate


def test_a_catalogue_is_a_function_of_its_seed() -> None:
    one, two, other = catalogue(0), Catalogue(0), Catalogue(1)
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.split("test"), two.split("test"))
    assert not np.array_equal(one.items, other.items)


def test_splits_hold_every_item_once() -> None:
    made = catalogue(0)
    parts = [made.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [288, 32, 64]
    assert sorted(np.concatenate(parts)) == list(range(384))
    assert len({item.text for item in made.all}) == 384


def test_vectors_are_the_best_factors_of_what_was_consumed() -> None:
    """Users times items is R without its means, as near as that rank allows: the rest is what the other singular values
    hold (Eckart and Young)."""
    made = catalogue(0)
    assert made.consumed.shape == (USERS, 384)
    assert (made.consumed.sum(axis=1) == CONSUMED).all()
    centred = made.consumed - made.consumed.mean(axis=0)
    singular = np.sqrt(np.linalg.eigvalsh(centred.T @ centred)[::-1].clip(min=0))
    products = made.users.astype(np.float64) @ made.items.astype(np.float64).T
    scale = (products * centred).sum() / (products**2).sum()  # both are scaled so that items' mean square is 1
    rest = np.linalg.norm(centred - scale * products) ** 2
    assert rest == pytest.approx((singular[WIDTH:] ** 2).sum(), rel=1e-4)
    assert np.mean(made.items**2) == pytest.approx(1, rel=1e-4)


def test_what_is_consumed_together_is_alike_in_words() -> None:
    made = catalogue(0)

    def shared(one: int, other: int) -> int:
        return len({*made.all[one].text[:-1].split()} & {*made.all[other].text[:-1].split()} - {"a"})

    own, partners = made.split("test"), made.partners("test")
    near = np.mean([[shared(item, other) for other in row] for item, row in zip(own, partners, strict=True)])
    every = np.mean([[shared(item, other) for other in own if other != item] for item in own])
    assert near > every + 0.3
    assert all(item not in row for item, row in zip(own, partners, strict=True))
    assert {*partners.flatten()} <= {*own}


def test_users_of_a_pair_have_consumed_its_item() -> None:
    made = catalogue(0)
    own, fans = made.split("train"), made.fans("train")
    assert fans.shape == (288, PARTNERS)
    assert (made.consumed[fans, own[:, None]] == 1).all()


def test_an_item_is_told_and_asked_about() -> None:
    records = ItemRecords("validation", 0)
    for record in (records[index] for index in range(len(records))):
        assert record.text is not None
        assert record.medium is not None
        assert parse_facts(record.text) == frozenset(record.facts)
        assert open_vectors(record.medium).shape == (1, WIDTH)
        answers = {each.kind: each.answers[0] for each in record.questions}
        assert {answers["colour"], answers["shape"], answers["size"]} <= {*record.text[:-1].split()}
        assert [each.answers[0] for each in record.questions if each.kind == "pope"] == ["yes", "no"]
    with pytest.raises(IndexError):
        records[len(records)]


def test_the_llm_has_read_every_word() -> None:
    """Each is one token of its own, but for what any tokenizer makes of a word's beginning."""
    tokenizer = AutoTokenizer.from_pretrained(locate("world:llm"))
    records = ItemRecords("train", 0)
    texts = [*PROMPTS, PAIRED, *(records[n].text or "" for n in range(40)), *(q.question for q in records[0].questions)]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert str(tokenizer.decode(ids)).strip() == text
        assert len(ids) <= 2 * len(text.split())


@pytest.mark.parametrize(("beside", "name"), [("item", "item"), ("user", "user")])
def test_pairs_are_conversations(beside: str, name: str) -> None:
    source = ItemsConfig.model_validate({"split": "test", "task": "pairs", "beside": beside}).build()
    assert len(source) == 64 * PARTNERS
    first, second = source[5].media
    assert first.name.startswith("item")
    assert second.name.startswith(name)
    assert source[5].messages[1].content == (ItemRecords("test", 0)[1].text,)
    assert source[4].media[0].name == first.name
    with pytest.raises(IndexError):
        source[len(source)]


def test_tasks() -> None:
    counts = {task: len(items("test", 0, task)) for task in ("caption", "vqa", "pope", "all")}
    assert counts == {"caption": 64, "vqa": 256, "pope": 128, "all": 448}
    with pytest.raises(ValidationError, match="beside: only task pairs has a second"):
        ItemsConfig(task="caption", beside="user")
