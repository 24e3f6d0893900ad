"""Fingerprints of user code: which edits make results stale."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batchscape.study.fingerprint import fingerprint


def fresh_fingerprint(root: Path) -> str:
    fingerprint.__globals__["_fingerprint"].cache_clear()
    fingerprint.__globals__["_read"].cache_clear()
    return fingerprint(root)


def test_edit_of_an_imported_module_changes_the_fingerprint(write_module: Callable):
    root = write_module("net.py", "import torch\nimport layers\nfrom kit import norms\n")
    beside = write_module("layers.py", "x = 1\n")
    write_module("kit/__init__.py", "")
    inside = write_module("kit/norms.py", "from .deep import y\n")
    deep = write_module("kit/deep.py", "y = 1\n")
    unrelated = write_module("unrelated.py", "z = 1\n")

    before = fresh_fingerprint(root)
    for file in (root, beside, inside, deep, unrelated):
        text = file.read_text()
        file.write_text(f"# a comment\n{text}")
        assert fresh_fingerprint(root) == before
        file.write_text(f"{text}edited = 1\n")
        assert (fresh_fingerprint(root) == before) == (file is unrelated), file
        file.write_text(text)
    assert fresh_fingerprint(root) == before


@pytest.mark.parametrize(
    "statement",
    [
        "import docs.kit.norms",
        "from docs.kit import norms",
        "from docs.kit.norms import x",
        "from ..kit import norms",
        "from ..kit.norms import x",
    ],
)
def test_folders_without_init_file_are_packages(write_module: Callable, statement: str):
    root, used = write_module("docs/example/net.py", f"{statement}\n"), write_module("docs/kit/norms.py", "x = 1\n")
    before = fresh_fingerprint(root)
    used.write_text("x = 2\n")
    assert fresh_fingerprint(root) != before


def test_parent_packages_are_part_of_the_fingerprint(write_module: Callable):
    root, outer, inner = (
        write_module("a/b/net.py", "y = 1\n"),
        write_module("a/__init__.py", ""),
        write_module("a/b/__init__.py", ""),
    )
    helper = write_module("a/helper.py", "z = 1\n")
    seen = {fresh_fingerprint(root)}
    for file, text in ((outer, "from . import helper\n"), (inner, "x = 1\n"), (helper, "z = 2\n")):
        file.write_text(text)
        seen.add(fresh_fingerprint(root))
    assert len(seen) == 4


@pytest.mark.parametrize("content", [b"def Net(:\n", b"x = 1\0", b"# coding: latin-1\nx = '\xe9'\n", b"x = '\xe9'\n"])
def test_invalid_source_has_a_fingerprint(write_module: Callable, content: bytes):
    root = write_module("net.py", "")
    root.write_bytes(content)
    before = fresh_fingerprint(root)
    root.write_bytes(content.replace(b"x", b"y").replace(b"Net", b"Nat"))
    assert fresh_fingerprint(root) != before


def test_installed_packages_beside_a_module_are_ignored(tmp_path: Path):
    site = tmp_path / "site-packages"
    texts = {
        "mine/__init__.py": "",
        "mine/net.py": "import other\nfrom . import more\n",
        "mine/more.py": "a = 1\n",
        "other/__init__.py": "b = 1\n",
    }
    for name, text in texts.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)

    root = site / "mine" / "net.py"
    before = fresh_fingerprint(root)
    (site / "other" / "__init__.py").write_text("b = 2\n")
    assert fresh_fingerprint(root) == before
    (site / "mine" / "more.py").write_text("a = 2\n")
    assert fresh_fingerprint(root) != before


def test_all_files_of_an_installed_package_count_without_being_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site-packages"
    package = site / "big"
    (package / "models").mkdir(parents=True)
    root, other = package / "__init__.py", package / "models" / "vit.py"
    root.write_text("")
    other.write_text("a = 1\n")
    seen = {fresh_fingerprint(root)}
    other.write_text("a = 2\n")
    seen.add(fresh_fingerprint(root))
    (package / "models" / "new.py").write_text("")
    seen.add(fresh_fingerprint(root))
    other.rename(package / "models" / "resnet.py")
    seen.add(fresh_fingerprint(root))
    assert len(seen) == 4

    def refuse(*_):
        raise AssertionError("parsed")

    monkeypatch.setattr("batchscape.study.fingerprint.ast.parse", refuse)
    fresh_fingerprint(root)


def test_single_installed_module_counts(tmp_path: Path):
    root = tmp_path / "site-packages" / "small.py"
    root.parent.mkdir()
    root.write_text("a = 1\n")
    before = fresh_fingerprint(root)
    root.with_name("beside.py").write_text("b = 1\n")
    assert fresh_fingerprint(root) == before
    root.write_text("a = 2\n")
    assert fresh_fingerprint(root) != before
