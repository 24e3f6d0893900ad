"""The fingerprint: a job is stale when a statement that it runs changed, and never otherwise."""

import ast
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import batchscape

PACKAGE = Path(batchscape.__file__).parent

SCRIPT = "from batchscape.training.train import train\n\ntrain()\n"

PLAIN = '''\
"""A module."""

from batchscape.files import write_json

LIMIT = 3


class Box:
    """A class."""

    size: int = 1
    """An attribute."""


def double(value: int) -> int:
    """A function."""
    return value * 2
'''


@dataclass(frozen=True)
class Checkout:
    """A copy of the library and one job's script, free to edit."""

    folder: Path

    @classmethod
    def into(cls, folder: Path) -> "Checkout":
        shutil.copytree(PACKAGE, folder / "src" / "batchscape", ignore=shutil.ignore_patterns("__pycache__"))
        checkout = cls(folder)
        checkout.script.write_text(SCRIPT, encoding="utf-8")
        return checkout

    @property
    def script(self) -> Path:
        return self.folder / "job.py"

    def module(self, file: str) -> Path:
        return self.folder / "src" / "batchscape" / file

    def append(self, file: str, text: str) -> None:
        path = self.module(file)
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    def fingerprint(self, *roots: Path) -> str:
        """Of the script, or of the given roots, by the copy's own code, fresh, as a new process would."""
        spec = importlib.util.spec_from_file_location("fresh_fingerprint", self.module("fingerprint.py"))
        fresh = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fresh)
        return fresh.fingerprint(*(roots or [self.script]))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.into(tmp_path / "checkout")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 3  # a comment"),
        ("LIMIT = 3", "# a comment\n\n\n\nLIMIT = 3"),
        ("LIMIT = 3", "LIMIT = (\n    3\n)"),
        ("LIMIT = 3", "LIMIT=3"),
        ("value * 2", "(value * 2)"),
        ("import write_json", "import (\n    write_json,\n)"),
        ('"""A module."""', '"""Another module."""'),
        ('"""A module."""', ""),
        ('"""A class."""', "'''Another\n    class.'''"),
        ('    """An attribute."""', ""),
        ('"""A function."""', '"""Another function."""'),
        ('    """A function."""', ""),
    ],
    ids=str,
)
def test_comments_formatting_and_docstrings_make_nothing_stale(checkout: Checkout, old: str, new: str):
    checkout.script.write_text("import batchscape.plain", encoding="utf-8")
    checkout.module("plain.py").write_text(PLAIN, encoding="utf-8")
    before = checkout.fingerprint()
    assert old in PLAIN
    checkout.module("plain.py").write_text(PLAIN.replace(old, new), encoding="utf-8")
    assert checkout.fingerprint() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("LIMIT = 3", "LIMIT = 3\ndel LIMIT"),
        ("value * 2", "2 * value"),
        ("size: int = 1", "size: int = 2"),
        ("import write_json", "import write_text"),
        ("def double", "@staticmethod\ndef double"),
        ("    return value", "    value = value\n    return value"),
    ],
    ids=str,
)
def test_a_changed_statement_makes_the_job_stale(checkout: Checkout, old: str, new: str):
    checkout.script.write_text("import batchscape.plain", encoding="utf-8")
    checkout.module("plain.py").write_text(PLAIN, encoding="utf-8")
    before = checkout.fingerprint()
    assert old in PLAIN
    checkout.module("plain.py").write_text(PLAIN.replace(old, new), encoding="utf-8")
    assert checkout.fingerprint() != before


@pytest.mark.parametrize(
    "statement",
    [
        "import batchscape.files",
        "import batchscape.files as files",
        "from batchscape import files",
        "from batchscape import files as f",
        "from batchscape.files import write_json",
        "def later():\n    from batchscape.files import write_json",
        "if True:\n    import json, batchscape.files",
        "if True:\n    pass\nelse:\n    import batchscape.files",
        "try:\n    pass\nexcept ImportError:\n    import batchscape.files",
        "try:\n    pass\nfinally:\n    import batchscape.files",
        "match 1:\n    case _:\n        import batchscape.files",
        "class Late:\n    async def later(self):\n        with open(0):\n            import batchscape.files",
    ],
)
def test_every_way_to_import_a_module_is_followed(checkout: Checkout, statement: str):
    checkout.script.write_text(statement, encoding="utf-8")
    before = checkout.fingerprint()
    checkout.append("files.py", "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


# What training runs, and what it does not. The first are imported through others, not by the script.
RUN_BY_TRAINING = [
    "__init__.py",
    "config/base.py",
    "config/model.py",
    "config/run.py",
    "config/training.py",
    "data/prepared.py",
    "data/tensors.py",
    "errors.py",
    "files.py",
    "models.py",
    "objective.py",
    "training/__init__.py",
    "training/batches.py",
    "training/recorder.py",
    "weights.py",
]
NOT_RUN_BY_TRAINING = [
    "study.py",
    "fingerprint.py",
    "config/comparison.py",
    "config/data.py",
    "config/grid.py",
    "config/loading.py",
    "data/digits.py",
    "data/split.py",
]


@pytest.mark.parametrize("file", RUN_BY_TRAINING)
def test_training_is_stale_after_a_change_anywhere_below_it(checkout: Checkout, file: str):
    before = checkout.fingerprint()
    checkout.append(file, "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


def test_training_is_not_stale_after_changes_beside_it(checkout: Checkout):
    before = checkout.fingerprint()
    for file in NOT_RUN_BY_TRAINING:
        checkout.append(file, "\nLIMIT = 1\n")
    assert checkout.fingerprint() == before


def test_a_change_of_the_script_itself_makes_the_job_stale(checkout: Checkout):
    before = checkout.fingerprint()
    checkout.script.write_text(SCRIPT + "train()\n", encoding="utf-8")
    assert checkout.fingerprint() != before


def test_the_folder_of_the_checkout_does_not_matter(checkout: Checkout, tmp_path: Path):
    assert Checkout.into(tmp_path / "elsewhere" / "deeper").fingerprint() == checkout.fingerprint()


def test_the_order_of_the_roots_does_not_matter(checkout: Checkout):
    extra = checkout.module("study.py")
    both = checkout.fingerprint(checkout.script, extra)
    assert checkout.fingerprint(extra, checkout.script) == both
    assert checkout.fingerprint(checkout.script) != both


def test_modules_that_import_each_other_come_to_an_end(checkout: Checkout):
    checkout.module("one.py").write_text("import batchscape.two", encoding="utf-8")
    checkout.module("two.py").write_text("import batchscape.one", encoding="utf-8")
    checkout.script.write_text("import batchscape.one", encoding="utf-8")
    before = checkout.fingerprint()
    checkout.append("two.py", "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


def test_no_module_of_the_library_uses_a_relative_import_for_it_would_not_be_followed():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], path


def test_a_root_that_is_not_python_counts_by_its_text(checkout: Checkout):
    template = checkout.module("report/template/page.css")
    before = checkout.fingerprint(checkout.script, template)
    assert before != checkout.fingerprint()
    template.touch()
    assert checkout.fingerprint(checkout.script, template) == before
    checkout.append("report/template/page.css", "p { color: black; }\n")
    assert checkout.fingerprint(checkout.script, template) != before
