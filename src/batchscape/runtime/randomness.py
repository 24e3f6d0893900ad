"""Python's and NumPy's global random generators, from which custom networks may draw."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seed_global_rngs(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators while the block runs, and restore their states afterwards.

    Weights and stochastic depth are often drawn from them; unseeded, a run could not be reproduced or resumed.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is intended
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
