"""LLaVA's JSON: ``{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n…"}, {"from": "gpt", …}]}``.

Visual Instruction Tuning. Haotian Liu, Chunyuan Li, Qingyang Wu, Yong Jae Lee, arXiv 2304.08485.
Differs from the released loader: an image stays where its ``<image>`` stands (the loader moves it to the front), and
one too many or too few is an error.
"""

from collections.abc import Mapping, Sequence

from mmbridge.data.messages import Media, shown
from mmbridge.data.sample import Medium, Message, Role
from mmbridge.errors import DataError

_ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
                              "system": "system"}  # fmt: skip


def parse_conversations(raw: object, media: Sequence[Medium], where: str) -> tuple[Message, ...]:
    """Messages from the value of ``conversations`` and the row's images.

    Raises:
        DataError: with ``where``: not a conversation, an unknown speaker, or marks and images that differ in number.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        raise DataError(where, f"conversations: expected a list of turns, found {shown(raw)}")
    queue, messages = Media(media, where), []
    for turn in raw:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise DataError(where, f"conversations: expected turns with from and value, found {shown(turn)}")
        speaker = turn.get("from")
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise DataError(where, f"from: expected human, gpt or system, found {shown(speaker)}")
        messages.append(Message(_ROLES[speaker], tuple(queue.split(turn["value"]))))
    queue.close()
    return tuple(messages)
