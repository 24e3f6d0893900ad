"""Import of user code."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscape.runtime.user_code import module_file


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a module where the workflow runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, outputs, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear({features}, width), nn.ReLU(), nn.Linear(width, {outputs}))

    def forward(self, images):
        return self.layers(images)
"""


def net(features: str = "image_shape[0] * image_shape[1] * image_shape[2]", outputs: str = "outputs") -> str:
    return NET.format(features=features, outputs=outputs)


def test_module_file_is_found_without_running_it(own: Callable):
    top = own("my_net.py", "raise SystemExit('was run')")
    inner = own("my_package/deep/net.py", "raise SystemExit('was run')")
    package = own("other/__init__.py", "raise SystemExit('was run')")
    own("other/net.py", "raise SystemExit('was run')")
    assert module_file("my_net:Net", "model.name") == top
    assert module_file("my_package.deep.net:Net", "model.name") == inner
    assert module_file("other:Net", "model.name") == package
    assert module_file("other.net:Net", "model.name") == package.with_name("net.py")


@pytest.mark.parametrize("path", ["nowhere:Net", "my_net.inner:Net", "nowhere.deep:Net", "__main__:Net"])
def test_missing_module_is_reported_with_its_key(own: Callable, refusal: Callable, path: str):
    own("my_net.py", net())
    message = refusal(module_file, path, "model.name")
    assert message.startswith("model.name: there is no module ")
    assert path.partition(":")[0] in message


def test_local_module_has_precedence_over_an_installed_one(own: Callable):
    """So it does in a job, which is a process of its own."""
    import pooch

    path = own("pooch.py", net())
    assert module_file("pooch:Net", "model.name") == path != Path(pooch.__file__)
