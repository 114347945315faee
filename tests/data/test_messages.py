"""Conversations in the field's JSON forms become messages; anything else is one clear line."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data.llava import parse_conversations
from mmbridge.data.media import open_image
from mmbridge.data.messages import parse_messages
from mmbridge.data.sample import Medium, Message
from mmbridge.errors import DataError
from tests.data.pictures import encoded, noise

ROOT = Path("/data/set")
WHERE = "chat.jsonl:3"


def user(content: Any, media: tuple[Medium, ...] = ()) -> tuple[str | Medium, ...]:
    (message,) = parse_messages([{"role": "user", "content": content}], ROOT, WHERE, media)
    assert message.role == "user"
    return message.content


def refused(content: Any, line: str) -> None:
    with pytest.raises(DataError, match=f"^{WHERE}: {line}") as caught:
        user(content)
    assert "\n" not in str(caught.value)


def test_text_and_parts() -> None:
    assert user("what is it?") == ("what is it?",)
    a, text = user([{"type": "image", "path": "in/a.png"}, {"type": "text", "text": "what?"}])
    assert a == Medium("image", ROOT / "in/a.png", f"in/a.png ({WHERE})")
    assert text == "what?"


@pytest.mark.parametrize("key", ["path", "image", "url"])
def test_every_name_of_a_path_is_read(key: str) -> None:
    (medium,) = user([{"type": "image", key: "a.png"}])
    assert isinstance(medium, Medium)
    assert medium.source == ROOT / "a.png"


def test_images_inside_the_text_of_the_file() -> None:
    data = b64encode(encoded(noise(5))).decode()
    for part in (
        {"type": "image", "base64": data},
        {"type": "image", "url": f"data:image/png;base64,{data}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ):
        (medium,) = user([part])
        assert isinstance(medium, Medium)
        assert open_image(medium).tobytes() == noise(5).tobytes()


def test_images_of_the_row_take_the_marks_in_order() -> None:
    a, b = Medium("image", Path("a")), Medium("image", Path("b"))
    assert user("<image>\nleft of\n<image>?", (a, b)) == (a, "left of\n", b, "?")
    assert user([{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}], (a, b)) == (a, "and", b)


def test_a_callers_own_paths_and_pictures_are_free() -> None:
    picture = noise()
    content = [{"type": "image", "image": picture}, {"type": "image", "path": "/elsewhere/a.png"}]
    (message,) = parse_messages([{"role": "user", "content": content}], None, "question")
    assert [medium.source for medium in message.media] == [picture, Path("/elsewhere/a.png")]


def test_what_is_no_conversation() -> None:
    refused(7, "content: expected text or a list of parts, found 7")
    types = "text, image, image_url or vector"
    refused([{"type": "sculpture"}], f"content: expected parts of type {types}, found 'sculpture'")
    refused([{"type": "text"}], "text: expected text, found nothing")
    refused([{"type": "image", "path": "a", "url": "b"}], "expected one source of an image, found path and url")
    refused([{"type": "image", "path": 4}], "path: expected a path or an image, found 4")
    refused([{"type": "image", "base64": "!!"}], "base64: expected base64")
    refused([{"type": "image", "url": "data:text/html,hi"}], "url: expected a data URI of an image")
    refused("look: <image>", "expected as many <image> as images, found 1 <image> and 0 images")
    for raw, line in (
        ([], "expected a list of messages"),
        ("hi", "expected a list of messages, found 'hi'"),
        ([3], "expected a message with role and content, found 3"),
        ([{"role": "robot", "content": "hi"}], "role: expected one of system, user, assistant, found 'robot'"),
    ):
        with pytest.raises(DataError, match=f"^{WHERE}: {line}"):
            parse_messages(raw, ROOT, WHERE)


@pytest.mark.parametrize("url", ["http://10.0.0.1/a.png", "https://x.org/a.png", "file:///etc/passwd", "s3://b/a"])
def test_remote_urls_are_refused(url: str) -> None:
    refused([{"type": "image", "url": url}], "url: expected a local file, found the URL")
    refused([{"type": "image_url", "image_url": {"url": url}}], "image_url: expected a local file")


@pytest.mark.parametrize("path", ["../a.png", "in/../../a.png", "/etc/passwd", "/data/settled/a.png", "a\0.png", "."])
def test_paths_may_not_leave_the_root(path: str) -> None:
    refused([{"type": "image", "path": path}], "expected media inside /data/set, found")


def test_llava_turns() -> None:
    a = Medium("image", Path("a"))
    raw = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]
    assert parse_conversations(raw, [a], WHERE) == (Message("user", (a, "what?")), Message("assistant", ("a cat",)))
    raw[0]["value"] = "what?\n<image>"
    assert parse_conversations(raw, [a], WHERE)[0].content == ("what?\n", a)


def test_llava_marks_and_images_must_agree() -> None:
    a = Medium("image", Path("a"))
    for value, media, found in (
        ("<image><image> what?", [a], "2 <image> and 1 image"),
        ("what?", [a], "0 <image> and 1 image"),
        ("<image>", [a, a], "1 <image> and 2 images"),
    ):
        with pytest.raises(DataError, match=f"^{WHERE}: expected as many <image> as images, found {found}"):
            parse_conversations([{"from": "human", "value": value}], media, WHERE)
    with pytest.raises(DataError, match="from: expected human, gpt or system, found 'owl'"):
        parse_conversations([{"from": "owl", "value": "hu"}], [], WHERE)
    with pytest.raises(DataError, match="conversations: expected turns with from and value"):
        parse_conversations([{"from": "human"}], [], WHERE)
