"""Fingerprints of user code: which edits make results stale."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscape.study.fingerprint import fingerprint


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


def fingerprint_anew(root: Path) -> str:
    fingerprint.__globals__["_fingerprint"].cache_clear()
    fingerprint.__globals__["_read"].cache_clear()
    return fingerprint(root)


def test_edit_of_an_imported_module_changes_the_fingerprint(own: Callable):
    root = own("net.py", "import torch\nimport layers\nfrom kit import norms\n")
    beside = own("layers.py", "x = 1\n")
    own("kit/__init__.py", "")
    inside = own("kit/norms.py", "from .deep import y\n")
    deep = own("kit/deep.py", "y = 1\n")
    unrelated = own("unrelated.py", "z = 1\n")

    before = fingerprint_anew(root)
    for file in (root, beside, inside, deep, unrelated):
        text = file.read_text()
        file.write_text(f"# a comment\n{text}")
        assert fingerprint_anew(root) == before
        file.write_text(f"{text}edited = 1\n")
        assert (fingerprint_anew(root) == before) == (file is unrelated), file
        file.write_text(text)
    assert fingerprint_anew(root) == before


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
def test_folders_without_init_file_are_packages(own: Callable, statement: str):
    root, used = own("docs/example/net.py", f"{statement}\n"), own("docs/kit/norms.py", "x = 1\n")
    before = fingerprint_anew(root)
    used.write_text("x = 2\n")
    assert fingerprint_anew(root) != before


def test_parent_packages_are_part_of_the_fingerprint(own: Callable):
    root, outer, inner = own("a/b/net.py", "y = 1\n"), own("a/__init__.py", ""), own("a/b/__init__.py", "")
    helper = own("a/helper.py", "z = 1\n")
    seen = {fingerprint_anew(root)}
    for file, text in ((outer, "from . import helper\n"), (inner, "x = 1\n"), (helper, "z = 2\n")):
        file.write_text(text)
        seen.add(fingerprint_anew(root))
    assert len(seen) == 4


@pytest.mark.parametrize("content", [b"def Net(:\n", b"x = 1\0", b"# coding: latin-1\nx = '\xe9'\n", b"x = '\xe9'\n"])
def test_invalid_source_has_a_fingerprint(own: Callable, content: bytes):
    root = own("net.py", "")
    root.write_bytes(content)
    before = fingerprint_anew(root)
    root.write_bytes(content.replace(b"x", b"y").replace(b"Net", b"Nat"))
    assert fingerprint_anew(root) != before


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
    before = fingerprint_anew(root)
    (site / "other" / "__init__.py").write_text("b = 2\n")
    assert fingerprint_anew(root) == before
    (site / "mine" / "more.py").write_text("a = 2\n")
    assert fingerprint_anew(root) != before
