"""Where to compute."""

import torch

from batchscape.errors import UserError


def choose_device(accelerator: str) -> torch.device:
    """Return the device for `training.accelerator`: `auto`, `cpu` or `gpu`.

    Raises UserError if a GPU is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("training.accelerator: `gpu`, but no CUDA GPU is available here; write `accelerator: auto`")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")
