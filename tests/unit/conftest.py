"""Fixtures of the unit tests: data prepared once, error messages and the global random states."""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from batchscape.config.data.images import DigitsConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.errors import UserError
from tests.helpers.objectives import image_data, images_of, labels_of

# No deadline, since machines are shared; the same examples each time, so that failures are reproducible.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")
# On a busy machine, threads of tiny networks mostly wait for each other.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # Lightning uses a name that torch has deprecated; nothing to fix here.
    config.addinivalue_line("filterwarnings", "ignore:.*LeafSpec.*")


@pytest.fixture(scope="session")
def prepared() -> PreparedData:
    """All digits, with the default split."""
    return prepare(DigitsConfig())[0]


@pytest.fixture(scope="session")
def small_data(prepared: PreparedData) -> PreparedData:
    """A few digits to train on quickly: 230 and 60, so that with batches of 32 and 64 the last one is smaller."""
    return image_data(
        images_of(prepared.train)[:230],
        labels_of(prepared.train)[:230],
        images_of(prepared.validation)[:60],
        labels_of(prepared.validation)[:60],
        prepared.spec.classes,
    )


@pytest.fixture(scope="session")
def small_data_file(small_data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The few digits as a prepared file."""
    path = tmp_path_factory.mktemp("data") / "prepared.safetensors"
    write_prepared(path, small_data)
    return path


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Call a function that must raise a UserError; return its message, which must be one line."""

    def call(function: Callable, *args, **kwargs) -> str:
        with pytest.raises(UserError) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert message.splitlines() == [message]
        return message

    return call


class GlobalRandomness:
    """The global random states of Python, NumPy and torch."""

    def seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is intended
        torch.manual_seed(seed)

    def draws(self) -> tuple[float, float, float]:
        """Draw the next number of each; equal draws mean equal states."""
        return random.random(), float(np.random.random()), torch.rand(()).item()  # noqa: NPY002


@pytest.fixture
def randomness() -> Iterator[GlobalRandomness]:
    """The global random states, restored after the test."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield GlobalRandomness()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """A function that writes a module to an empty working folder, from which it can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    # Only those of the test: torch imports parts of itself late, and would have them twice.
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        locations = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
        if any(Path(location).is_relative_to(tmp_path) for location in locations):
            del sys.modules[name]
