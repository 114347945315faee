"""Where a bridge runs."""

import torch

from mmbridge.errors import UserError


def pick(name: str | None) -> torch.device:
    """The device of this name; the accelerator, where there is one, when no name is given.

    Raises:
        UserError: no such device, or not one this machine has.
    """
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts that it was built for CUDA
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"device {name}", f"cannot be used ({reason})", "leave it out to take what there is") from None
    return device
