"""What is kept of things that can be made again."""

import pickle

from mmbridge.data.recent import Recent


def test_the_one_not_asked_for_the_longest_makes_room() -> None:
    made: list[str] = []

    def get(key: str) -> str:
        return recent.get(key, lambda: made.append(key) or key.upper())  # type: ignore[func-returns-value]

    recent = Recent[str](2)
    assert [get(key) for key in "abacab"] == list("ABACAB")
    assert made == list("abcb")


def test_it_arrives_empty() -> None:
    recent = Recent[int](1)
    assert recent.get("a", lambda: 1) == recent.get("a", lambda: 2) == 1
    assert pickle.loads(pickle.dumps(recent)).get("a", lambda: 2) == 2
