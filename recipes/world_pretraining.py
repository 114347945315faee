"""What the scripts that pretrain the embedded world share: a time-boxed loop, rendered scenes, weights on disk."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch import distributed as dist

from mmbridge.data.world.render import SIDE, centre, render
from mmbridge.data.world.scene import Scene, sample_scene

Batch = TypeVar("Batch")

MEAN, STD = (0.45, 0.45, 0.45), (0.27, 0.27, 0.27)
"""Of the pixels: what the vision encoders subtract and divide by."""

PATCH = 12
"""Pixels of a patch's side."""


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def optimise(
    model: nn.Module,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch], dict[str, Tensor]],
    *,
    minutes: float,
    lr: float,
    save: Callable[[], None],
    warmup: int = 100,
    weight_decay: float = 0.05,
    log_every: int = 100,
    save_every_minutes: float = 3,
) -> int:
    """Muon (Jordan et al. 2024) for the weights of hidden layers, AdamW for the rest, under bf16 autocast.

    The cosine ends when the time does. ``save`` is called every so often and at the end. In a process group gradients
    are averaged over the processes, which must begin with equal weights. Returns the steps taken.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    device = next(iter(named.values())).device.type
    began, step, done, saved = time.monotonic(), 0, 0.0, 0.0
    while done < 1:
        spent = _of_the_first((time.monotonic() - began) / 60)
        done = min(1.0, spent / minutes)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = lr * min(1, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * done))
        with torch.autocast(device, torch.bfloat16):
            losses = loss_of(next(batches))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        average_gradients(named.values())
        nn.utils.clip_grad_norm_(named.values(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if step % log_every == 0:
            shown = "  ".join(f"{name} {value.item():.4f}" for name, value in losses.items())
            print(f"step {step}  {done:6.1%}  {shown}", flush=True)
        if spent - saved > save_every_minutes:
            save()
            saved = spent
        step += 1
    print(f"{step} steps in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    save()
    return step


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Puts the mean over the processes of a group in place of each one's own; without a group, nothing."""
    if dist.is_initialized():
        own = [p.grad for p in parameters if p.grad is not None]
        mean = nn.utils.parameters_to_vector(own) / dist.get_world_size()
        dist.all_reduce(mean)
        nn.utils.vector_to_parameters(mean, own)


def _of_the_first(value: float) -> float:
    """The value of the first process, in all of them."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return float(shared)


def _pictures(seed: int, split: str, indices: range) -> tuple[np.ndarray, list[Scene]]:
    scenes = [sample_scene(split, seed, i) for i in indices]
    return np.stack([np.asarray(render(scene)) for scene in scenes]), scenes


def pictures(count: int, *, seed: int, split: str = "train", workers: int = 4) -> tuple[Tensor, list[Scene]]:
    """``count`` rendered scenes: uint8 (count, 3, SIDE, SIDE), and the scenes themselves."""
    chunk = 1000
    spans = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    pixels = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    scenes: list[Scene] = []
    with ProcessPoolExecutor(workers) as pool:
        for span, (block, found) in zip(spans, pool.map(partial(_pictures, seed, split), spans), strict=True):
            pixels[span.start : span.stop] = torch.from_numpy(block).permute(0, 3, 1, 2)
            scenes += found
    return pixels, scenes


REACH = 10.0
"""A token is on an object when its middle is within so many pixels of the object's, across and down."""


def insides(scenes: Sequence[Scene], side: int) -> Tensor:
    """Which tokens of a ``side`` × ``side`` grid are on each object: bool (scenes, 4, side²)."""
    middle = (torch.arange(side) + 0.5) * SIDE / side
    inside = torch.zeros(len(scenes), 4, side, side, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.objects):
            x, y = centre(thing)
            inside[row, slot] = ((middle - y).abs() < REACH)[:, None] & ((middle - x).abs() < REACH)[None]
    return inside.flatten(2)


def save_bfloat16(state: dict[str, Tensor], path: Path) -> None:
    """Weights as they are shipped: bfloat16 safetensors."""
    kept = {
        name: tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in state.items()
    }
    save_file(kept, path, metadata={"format": "pt"})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
