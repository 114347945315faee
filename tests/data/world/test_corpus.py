"""The language model's corpus: repeatable, held out properly, with answers where answers belong."""

from mmbridge.data.world.corpus import LESSONS, question_about_text, quiz
from mmbridge.data.world.language import CAPTION_PROMPTS, parse_facts


def test_a_quiz_is_a_pure_function_of_seed_and_index() -> None:
    assert quiz(0, 11) == quiz(0, 11)
    assert quiz(0, 11) != quiz(0, 12)
    assert quiz(0, 11) != quiz(0, 11, held_out=True)


def test_roles_alternate_and_nothing_is_empty() -> None:
    for lesson in range(len(LESSONS)):
        for index in range(150):
            one = quiz(0, index, lesson=lesson)
            assert one.talks
            for talk in one.talks:
                assert [role for role, _ in talk] == ["user", "assistant"] * (len(talk) // 2)
                assert all(text.strip() for _, text in talk)


def test_lessons_share_the_training_time() -> None:
    assert abs(sum(share for share, _ in LESSONS) - 1) < 1e-9
    for _, mix in LESSONS:
        assert abs(sum(share for share, _ in mix) - 1) < 1e-9


def test_it_covers_scenes_sound_motion_speech_numbers_and_knowledge() -> None:
    quizzes = [quiz(0, index) for index in range(1000)]
    text = "\n".join(words for one in quizzes for talk in one.talks for words in (one.told, *(t for _, t in talk)))
    for phrase in ("sweep", "moves from", "the speaker says", "odd or even", "the opposite of", "collide", "wie viele",
                   "combien", "cuántos", "is it true that there is no", "larger than", "say why"):  # fmt: skip
        assert phrase in text, phrase


def test_captions_it_gives_state_the_facts_of_the_description() -> None:
    checked = 0
    for index in range(600):
        one = quiz(0, index)
        if "on a" not in one.told or not one.told.endswith("background.") or "\n" in one.told:
            continue
        for (_, prompt), (_, said), *_ in one.talks:
            if prompt in CAPTION_PROMPTS:
                assert parse_facts(said) == parse_facts(one.told)
                checked += 1
    assert checked > 10


def test_held_out_questions_carry_their_description() -> None:
    told, question, answers, kind = question_about_text(0, 3)
    assert told
    assert question[-1] in "?."
    assert answers
    assert kind
