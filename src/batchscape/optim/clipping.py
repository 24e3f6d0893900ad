"""Clipping of gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their norm is at most `max_norm`, as `torch.nn.utils.clip_grad_norm_` does.

    If the norm is infinite or NaN, all gradients become NaN, so that the run is seen to diverge. This includes finite
    gradients whose squares overflow, which `clip_grad_norm_` would set to zero. Nothing waits for the device.

    Args:
        parameters: The parameters; those without `.grad` are ignored.
        max_norm: The largest Euclidean norm of all gradients as one vector (Pascanu et al. 2013).

    Returns:
        Whether the norm was larger, or not finite; (), bool, on the device of the gradients.
    """
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    clip_grads_with_norm_(parameters, max_norm, torch.where(norm.isfinite(), norm, torch.nan))
    return ~(norm <= max_norm)
