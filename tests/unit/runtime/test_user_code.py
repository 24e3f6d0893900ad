"""Import of user code."""

import os
import subprocess
import sys
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


def test_torchvision_without_its_compiled_operators_can_be_imported(tmp_path: Path):
    """As its wheels on PyPI beside a torch without CUDA."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "extension.py").write_text("has_operators = False\n")
    (package / "registrations.py").write_text(
        "import torch\nimport torchvision.extension\n"
        "assert not torchvision.extension.has_operators\n"
        + "".join(
            f"@torch.library.register_fake('torchvision::{name}')\ndef {name}(inputs):\n    return inputs\n"
            for name in ("first", "second")
        )
    )
    (package / "__init__.py").write_text("from torchvision import extension, registrations\ndef net():\n    return 5\n")
    (tmp_path / "my_net.py").write_text("from torchvision import net\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('operator torchvision::first does not exist')\n")
    code = """if True:
        import sys
        from batchscape.errors import UserError
        from batchscape.runtime.user_code import import_object
        import torch
        try:
            import torchvision
            sys.exit('the import does not fail by itself')
        except RuntimeError:
            pass
        assert import_object("my_net:net", "model.name")() == 5
        try:
            import_object("broken:net", "model.name")
            sys.exit('endless')
        except UserError as error:
            print(error)
    """
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("model.name: broken cannot be imported: RuntimeError: operator torchvision::first")
