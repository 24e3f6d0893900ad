"""Import of user code."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batchscape.runtime.user_code import module_file
from tests.helpers.networks import net


def test_module_file_is_found_without_running_it(write_module: Callable):
    top = write_module("my_net.py", "raise SystemExit('was run')")
    inner = write_module("my_package/deep/net.py", "raise SystemExit('was run')")
    package = write_module("other/__init__.py", "raise SystemExit('was run')")
    write_module("other/net.py", "raise SystemExit('was run')")
    assert module_file("my_net:Net", "model.name") == top
    assert module_file("my_package.deep.net:Net", "model.name") == inner
    assert module_file("other:Net", "model.name") == package
    assert module_file("other.net:Net", "model.name") == package.with_name("net.py")


@pytest.mark.parametrize("path", ["nowhere:Net", "my_net.inner:Net", "nowhere.deep:Net", "__main__:Net"])
def test_missing_module_is_reported_with_its_key(write_module: Callable, refusal: Callable, path: str):
    write_module("my_net.py", net())
    message = refusal(module_file, path, "model.name")
    assert message.startswith("model.name: there is no module ")
    assert path.partition(":")[0] in message


def test_local_module_has_precedence_over_an_installed_one(write_module: Callable):
    """As in a job, which is a separate process."""
    import pooch

    path = write_module("pooch.py", net())
    assert module_file("pooch:Net", "model.name") == path != Path(pooch.__file__)
