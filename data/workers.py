"""Processes that work ahead of whoever waits for their results."""

import atexit
import os
import signal
import sys
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmbridge.interruption import SIGNALS

_ending = RawValue("b", 0)
"""Seen by every worker: this process is on its way out."""


def read_ahead(dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    """A loader whose results do not depend on how many processes work for it; with none, this one does the work.

    Args:
        options: what ``DataLoader`` takes besides.
    """
    return DataLoader(
        dataset,
        num_workers=workers,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=partial(_settle, _ending),
        generator=torch.Generator(),  # it draws a seed for each pass: not from the generator of training
        **options,
    )


def _settle(ending: Any, worker: int) -> None:
    """A worker leaves signals to its parent and does not start threads of the tokenizer's that a fork would break."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if ending.value else None)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@atexit.register
def _end() -> None:
    """Lets SIGTERM through: with it Python ends what is left of its workers, and then waits for them for ever.

    Some are left when an error holds on to a loader. This runs before Python does so, as what registers last runs
    first, and making the shared value has registered the other.
    """
    _ending.value = 1
