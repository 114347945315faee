"""Processes that work ahead of whoever waits for their results."""

import os
import signal
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmbridge.interruption import SIGNALS


def read_ahead(dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    """A loader whose results do not depend on how many processes work for it; with none, this one does the work.

    Args:
        options: what ``DataLoader`` takes besides.
    """
    return DataLoader(
        dataset,
        num_workers=workers,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_settle,
        generator=torch.Generator(),  # it draws a seed for each pass: not from the generator of training
        **options,
    )


def _settle(worker: int) -> None:
    """A worker leaves signals to its parent and does not start threads of the tokenizer's that a fork would break."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
