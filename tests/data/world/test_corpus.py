"""The language model's corpus: repeatable, held out properly, with answers where answers belong."""

from mmbridge.data.world.corpus import question_about_text, talk
from mmbridge.data.world.language import CAPTION_PROMPTS, parse_facts


def test_a_conversation_is_a_pure_function_of_seed_and_index() -> None:
    assert talk(0, 11) == talk(0, 11)
    assert talk(0, 11) != talk(0, 12)
    assert talk(0, 11) != talk(0, 11, held_out=True)


def test_roles_alternate_and_nothing_is_empty() -> None:
    for index in range(400):
        turns = talk(0, index)
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(text.strip() for _, text in turns)


def test_it_covers_scenes_sound_motion_speech_numbers_and_knowledge() -> None:
    text = "\n".join(words for index in range(1500) for _, words in talk(0, index))
    for phrase in ("sweep", "moves from", "the speaker says", "odd or even", "the opposite of", "collide", "wie viele",
                   "combien", "cuántos", "is it true that there is no", "larger than", "how many"):  # fmt: skip
        assert phrase in text, phrase


def test_captions_it_gives_state_the_facts_of_the_description() -> None:
    checked = 0
    for index in range(4000):
        turns = talk(0, index)
        told, _, prompt = turns[0][1].rpartition("\n")
        if prompt in CAPTION_PROMPTS and "on a" in told and told.endswith("background."):
            stated = parse_facts(told)
            if len(stated) > 1:
                assert parse_facts(turns[1][1]) >= {fact for fact in stated if len(fact) == 1}
                checked += 1
    assert checked > 10


def test_held_out_questions_carry_their_description() -> None:
    told, question, answers, kind = question_about_text(0, 3)
    assert told
    assert question[-1] in "?."
    assert answers
    assert kind
