"""Where a bridge runs."""

import os

import psutil
import torch

from mmbridge.errors import UserError


def pick(name: str | None, local: int = 0) -> torch.device:
    """The device of this name; the accelerator, where there is one, when no name is given.

    Args:
        local: which of a machine's accelerators is taken where the name does not say: this process's number there.

    Raises:
        UserError: no such device, or not one this machine has.
    """
    try:
        if name is None:
            device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        else:
            device = torch.device(name)
        if device.type != "cpu" and device.index is None and local:
            device = torch.device(device.type, local)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts that it was built for CUDA
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"device {name}", f"cannot be used ({reason})", "leave it out to take what there is") from None
    return device


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device; of main memory its share, as one of those of its machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
