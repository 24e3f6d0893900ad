"""What the unit tests share: data made once, and how a refusal and the global random states are looked at."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from batchscape.config.data import DigitsConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.errors import UserError

# Machines are shared, so no deadline; the same examples each time, so that a red test is red again.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")
# On a busy machine the threads of tiny networks spend their time waiting for each other.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # Lightning's own use of a name that torch renames; nothing to mend here.
    config.addinivalue_line("filterwarnings", "ignore:.*LeafSpec.*")


@pytest.fixture(scope="session")
def prepared() -> PreparedData:
    """All digits, split as by default."""
    return prepare(DigitsConfig())[0]


@pytest.fixture(scope="session")
def few(prepared: PreparedData) -> PreparedData:
    """A few digits to train on quickly: 230 and 60, so that batches of 32 and 64 leave a short last one."""
    return PreparedData(
        prepared.train_images[:230],
        prepared.train_labels[:230],
        prepared.validation_images[:60],
        prepared.validation_labels[:60],
        prepared.classes,
    )


@pytest.fixture(scope="session")
def few_file(few: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The few digits as a prepared file."""
    path = tmp_path_factory.mktemp("data") / "images.safetensors"
    write_prepared(path, few)
    return path


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Call what must be refused; return the UserError's message, which must be one line."""

    def call(function: Callable, *args, **kwargs) -> str:
        with pytest.raises(UserError) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert message.splitlines() == [message]
        return message

    return call


class GlobalRandomness:
    """The random states that any code in the process may change: Python's, NumPy's and torch's."""

    def seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what is meant
        torch.manual_seed(seed)

    def draws(self) -> tuple[float, float, float]:
        """The next number of each; equal draws mean equal states."""
        return random.random(), float(np.random.random()), torch.rand(()).item()  # noqa: NPY002


@pytest.fixture
def randomness() -> Iterator[GlobalRandomness]:
    """The global random states, put back after the test."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield GlobalRandomness()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
