"""Where the time of a measurement goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """``seconds`` by name; what is timed inside something else counts for itself alone."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._inside = device, [0.0]

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Times what happens inside; waits for the device before and after."""
        start = self._now()
        self._inside.append(0.0)
        try:
            yield
        finally:
            whole = self._now() - start
            own = whole - self._inside.pop()
            self._inside[-1] += whole
            self.seconds[name] = self.seconds.get(name, 0.0) + own

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
