"""Random numbers that a network of the user's own draws from elsewhere than torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seed_global_rngs(seed: int) -> Iterator[None]:
    """Have Python's and NumPy's global generators draw by a seed for a while; then their states are as they were.

    Stochastic depth and weights are often drawn from them; unseeded, a run could not be repeated or resumed.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is what is meant
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
