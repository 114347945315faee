"""Where a bridge runs."""

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
