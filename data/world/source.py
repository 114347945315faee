"""The embedded world as a data set: every record is drawn, described and asked about when it is visited."""

import numpy as np

from mmbridge.data.record import Record, Task
from mmbridge.data.sample import Medium
from mmbridge.data.sources import RecordSource
from mmbridge.data.world.language import CAPTION_PROMPTS, caption, references
from mmbridge.data.world.questions import KINDS, questions
from mmbridge.data.world.render import render
from mmbridge.data.world.scene import sample_scene, stream
from mmbridge.llm.templates import TemplateName

_QUESTIONS = 1_000_003
"""Sets the random stream of a scene's questions apart from that of the scene."""


class WorldRecords:
    """``count`` scenes of a split, each a pure function of (split, seed, index)."""

    def __init__(self, split: str, count: int, seed: int) -> None:
        stream(split, seed, 0)  # refuses an unknown split now, not in a worker
        self.split, self.count, self.seed = split, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        scene = sample_scene(self.split, self.seed, index)
        name = f"{self.split}-{self.seed}-{index:06d}"
        return Record(
            id=name,
            medium=Medium("image", render(scene), name),
            text=caption(scene),
            references=tuple(references(scene)),
            facts=tuple(sorted(scene.facts)),
            objects=tuple(thing.name for thing in scene.objects),
            questions=questions(scene, stream(self.split, self.seed + _QUESTIONS, index)),
            split=self.split,
        )


class WorldSource(RecordSource):
    """Samples of the embedded world.

    Raises:
        DataError: the split is not one of ``Split``.
    """

    def __init__(
        self,
        split: str,
        count: int,
        seed: int,
        task: Task,
        *,
        turns: int = 1,
        together: int = 1,
        template: TemplateName | None = None,
    ) -> None:
        held = np.tile(np.array([1, len(KINDS), 2, 0]), (count, 1))
        records = WorldRecords(split, count, seed)
        super().__init__(
            records,
            task,
            CAPTION_PROMPTS,
            f"world:{split}",
            counts=held,
            turns=turns,
            together=together,
            template=template,
        )
