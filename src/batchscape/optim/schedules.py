"""The learning rate of each step."""

import math

from batchscape.config.schedule import ScheduleConfig


def factor(step: int, total: int, warmup: int, config: ScheduleConfig) -> float:
    """Return the learning rate of a step as a factor of that of the run.

    The warm-up is linear, as in Goyal et al. 2017, and reaches 1 in its last step. Of a decay of n steps, step i, from
    1, has done x = (i − 1)/n: as with the schedulers of torch, the first step still has the full rate, and
    `final_factor` is reached after the last one.

    Args:
        step: The optimizer step, from 1.
        total: Optimizer steps of the run.
        warmup: Optimizer steps of the warm-up, at most `total`; 0 for none.
        config: Section `schedule` of the study file. Its own `warmup` is not read, since arms may have another.

    Returns:
        The factor, from 0 to 1. For step `total` + 1 it is that after the last step.
    """
    if step <= warmup:
        return step / warmup
    start = max(warmup, total - round(config.decay_fraction * total))
    if config.decay == "constant" or step <= start or start == total:
        return 1.0
    done = min(1.0, (step - 1 - start) / (total - start))
    if config.decay == "linear":
        remaining = 1 - done
    elif config.decay == "cosine":
        remaining = (1 + math.cos(math.pi * done)) / 2
    else:
        remaining = 1 - math.sqrt(done)
    return config.final_factor + (1 - config.final_factor) * remaining
