"""ZeRO-3 shards an LLM without a whole copy of it in any process."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.frozen import content_hash
from mmbridge.ranks import together
from mmbridge.trainable import unfreeze
from tests import processes
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe

MIB = 2**20


def own() -> int:
    """MiB of this process's own memory; pages of mapped files, which it shares and which can be freed, aside."""
    return int(re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) // 1024


class Peak:
    """The most that ``own`` has been within, beyond what it was at first."""

    def __enter__(self) -> "Peak":
        self.first, self.most, self._ended = own(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.most = max(self.most, own() - self.first)


def peaks(folder: str) -> list[list[int]]:
    """By process: while the bridge is built and its engine starts, and while that makes it whole again."""
    with together() as ranks:
        recipe = tiny_recipe(Path(folder), llm={"path": f"{folder}/large"})
        import mmbridge.zero  # noqa: F401 - what DeepSpeed takes itself is not what is measured

        with Peak() as start:
            bridge = Bridge(recipe)
            unfreeze(bridge, recipe.stages[0], "stages.align", parts=["connectors."])
            config = DeepSpeedEngineConfig(kind="deepspeed", device="cpu", zero_stage=3)
            engine = config.build(bridge, recipe.stages[0], 3, "stages.align", ranks)
        shards = sum(getattr(each, "ds_tensor", each).nbytes for each in bridge.llm.parameters()) // MIB
        with Peak() as end:
            engine.close()
        found = torch.tensor([start.most, end.most, shards])
        return [each.tolist() for each in ranks.gather(found)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured where the system tells")
def test_no_process_has_a_copy_of_the_whole_llm(parts: Path, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16}
    folder = tiny_llm(parts / "large", **sizes)
    content_hash(folder)
    whole = (folder / "model.safetensors").stat().st_size // MIB
    assert whole > 200
    found = processes.together(peaks, str(parts), folder=tmp_path)
    assert len(found) == 2
    for start, end, shards in found:
        assert shards <= whole / 2 + 1
        assert start < 1.3 * whole  # its shards, and what the allocator does not give back
        assert end < 0.2 * whole
