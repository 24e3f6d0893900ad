"""The fingerprint: a job is stale when a statement that it runs changed, and never otherwise."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import batchscape

PACKAGE = Path(batchscape.__file__).parent
PROJECT = Path(__file__).parents[3]

SCRIPT = "from batchscape.training.train import train\n\ntrain()\n"

PLAIN = '''\
"""A module."""

from batchscape.io.files import write_json

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
        return fresh_fingerprint(self.folder / "src" / "batchscape", *(roots or [self.script]))


def fresh_fingerprint(package: Path, *roots: Path, cache_file: Path | None = None) -> str:
    spec = importlib.util.spec_from_file_location("fresh_fingerprint", package / "study" / "fingerprint.py")
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh.fingerprint(*roots, cache_file=cache_file)


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
def test_comments_formatting_and_docstrings_do_not_change_the_fingerprint(checkout: Checkout, old: str, new: str):
    checkout.script.write_text("import batchscape.plain", encoding="utf-8")
    checkout.module("plain.py").write_text(PLAIN, encoding="utf-8")
    before = checkout.fingerprint()
    assert old in PLAIN
    checkout.module("plain.py").write_text(PLAIN.replace(old, new), encoding="utf-8")
    assert checkout.fingerprint() == before


@pytest.mark.parametrize("library", ["lib", "lib64"])
def test_an_installed_package_has_the_fingerprints_of_a_clone(checkout: Checkout, tmp_path: Path, library: str):
    """Its files are below `site-packages`, of whose other packages all files count; `lib64` can be a link to `lib`."""
    scripts = checkout.folder / "workflow" / "scripts"
    scripts.mkdir(parents=True)
    template = "report/template/page.css"
    checkout.script.rename(scripts / "job.py")
    before = checkout.fingerprint(scripts / "job.py", checkout.module(template))
    package = tmp_path / "lib" / "site-packages" / "batchscape"
    shutil.copytree(checkout.folder / "src" / "batchscape", package)
    shutil.copytree(checkout.folder / "workflow", package / "_workflow" / "workflow")
    (tmp_path / "lib64").symlink_to("lib")
    package = tmp_path / library / "site-packages" / "batchscape"
    roots = [package / "_workflow" / "workflow" / "scripts" / "job.py", package / template]
    assert fresh_fingerprint(package, *roots) == before
    module = package / "training" / "train.py"
    module.write_text(module.read_text(encoding="utf-8") + "\nLIMIT = 3\n", encoding="utf-8")
    assert fresh_fingerprint(package, *roots) != before


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
def test_changed_statement_changes_the_fingerprint(checkout: Checkout, old: str, new: str):
    checkout.script.write_text("import batchscape.plain", encoding="utf-8")
    checkout.module("plain.py").write_text(PLAIN, encoding="utf-8")
    before = checkout.fingerprint()
    assert old in PLAIN
    checkout.module("plain.py").write_text(PLAIN.replace(old, new), encoding="utf-8")
    assert checkout.fingerprint() != before


@pytest.mark.parametrize(
    "statement",
    [
        "import batchscape.io.files",
        "import batchscape.io.files as files",
        "from batchscape.io import files",
        "from batchscape.io import files as f",
        "from batchscape.io.files import write_json",
        "def later():\n    from batchscape.io.files import write_json",
        "if True:\n    import json, batchscape.io.files",
        "if True:\n    pass\nelse:\n    import batchscape.io.files",
        "try:\n    pass\nexcept ImportError:\n    import batchscape.io.files",
        "try:\n    pass\nfinally:\n    import batchscape.io.files",
        "match 1:\n    case _:\n        import batchscape.io.files",
        "class Late:\n    async def later(self):\n        with open(0):\n            import batchscape.io.files",
    ],
)
def test_every_way_to_import_a_module_is_followed(checkout: Checkout, statement: str):
    checkout.script.write_text(statement, encoding="utf-8")
    before = checkout.fingerprint()
    checkout.append("io/files.py", "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


# What training runs, and what it does not. The first are imported through others, not by the script.
RUN_BY_TRAINING = [
    "__init__.py",
    "config/base.py",
    "config/model.py",
    "config/run.py",
    "config/training.py",
    "data/prepared.py",
    "data/dataset.py",
    "errors.py",
    "io/files.py",
    "models/build.py",
    "tasks/objective.py",
    "training/__init__.py",
    "training/sampler.py",
    "training/recorder.py",
    "io/weights.py",
]
NOT_RUN_BY_TRAINING = [
    "study/study.py",
    "study/fingerprint.py",
    "config/comparison.py",
    "config/data/section.py",
    "config/grid.py",
    "config/loading.py",
    "data/digits.py",
    "data/split.py",
]


@pytest.mark.parametrize("file", RUN_BY_TRAINING)
def test_change_below_training_changes_its_fingerprint(checkout: Checkout, file: str):
    before = checkout.fingerprint()
    checkout.append(file, "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


def test_change_beside_training_does_not_change_its_fingerprint(checkout: Checkout):
    before = checkout.fingerprint()
    for file in NOT_RUN_BY_TRAINING:
        checkout.append(file, "\nLIMIT = 1\n")
    assert checkout.fingerprint() == before


def test_changed_script_changes_the_fingerprint(checkout: Checkout):
    before = checkout.fingerprint()
    checkout.script.write_text(SCRIPT + "train()\n", encoding="utf-8")
    assert checkout.fingerprint() != before


def test_fingerprint_is_independent_of_the_checkout_folder(checkout: Checkout, tmp_path: Path):
    assert Checkout.into(tmp_path / "elsewhere" / "deeper").fingerprint() == checkout.fingerprint()


def test_fingerprint_is_independent_of_the_order_of_roots(checkout: Checkout):
    extra = checkout.module("study/study.py")
    both = checkout.fingerprint(checkout.script, extra)
    assert checkout.fingerprint(extra, checkout.script) == both
    assert checkout.fingerprint(checkout.script) != both


def test_circular_imports_terminate(checkout: Checkout):
    checkout.module("one.py").write_text("import batchscape.two", encoding="utf-8")
    checkout.module("two.py").write_text("import batchscape.one", encoding="utf-8")
    checkout.script.write_text("import batchscape.one", encoding="utf-8")
    before = checkout.fingerprint()
    checkout.append("two.py", "\nLIMIT = 1\n")
    assert checkout.fingerprint() != before


def test_library_has_no_relative_imports():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], path


def test_root_that_is_not_python_is_hashed_as_text(checkout: Checkout):
    template = checkout.module("report/template/page.css")
    before = checkout.fingerprint(checkout.script, template)
    assert before != checkout.fingerprint()
    template.touch()
    assert checkout.fingerprint(checkout.script, template) == before
    checkout.append("report/template/page.css", "p { color: black; }\n")
    assert checkout.fingerprint(checkout.script, template) != before


# What versions of Python parse, write or escape in different ways.
TRICKY = r"""
import re
name, width, values = "x", 3, {"a": [1]}
print(f"{name!r:>{width}} {name=} {{}} {values['a'][0]:.3f}" "more" f'{name}' f"")
print(f"{name:{width}.{width}}", f"{name!s}{name!a}", f"a" "b", f"{'quoted'}", rf"\d{name}", f"{width:}")
print(f"{(lambda x: x)(1)} {width:%H:%M} {name = } {'nested ' f'{width}'}", f'''
lines {name
}''')
texts = "\u00e9 \ud800 \N{BULLET} \x00 \t 'single' \"double\"", r"\d", b"\xff", u"old", "🫨", "é", ...
numbers = 0x10, 16, 1_000, 1e400, 1e-7, 0.1, 1j, 0b1, 2**-1, -0.0, 123456789012345678901234567890, True, None
match values:
    case {"a": [1, *rest], **others} if (n := len(rest)) < 3:
        pass
    case str() | int(real=0) | None | -1 | "text" | [_, _]:
        pass
@property
async def many(a: int, /, b: "str" = "1", *c, d: list[int] | None = None, **e) -> None:
    async with a as x, b as y:
        return [z async for z in x if z if not z]
    try:
        yield
    except* ValueError as error:
        raise error from None
    finally:
        del a
    global g
    lambda *p, q=1, **r: (p, q, *r)
class C(metaclass=type): pass
"""
# A number of more digits than `int` reads or writes; an escape that is none, of which newer versions warn; and syntax
# that none has.
ODD = {"digits.py": "a = 0x" + "f" * 5000, "escape.py": r"a = '\d \{'", "broken.py": "a = = 1", "bytes.py": "a = '\\0'"}
LONG = "a = " + " + ".join(["b"] * 900)
# Prints a line for each file: its path, and its hash by the code of the library.
HASHES = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fingerprint", sys.argv[1])
fingerprint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fingerprint)
for path in map(fingerprint.Path, sys.stdin.read().splitlines()):
    print(path, fingerprint.hashlib.sha256(fingerprint._read(path)[0].encode()).hexdigest())
"""


def other_pythons() -> list[str]:
    """Other versions of Python that this machine has, on the search path or by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = []
    for minor in range(11, 20):
        places = [shutil.which(f"python3.{minor}"), *sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python"))]
        # Some on the search path are there only to say that there is none.
        works = (
            str(place)
            for place in filter(None, places)
            if not subprocess.run([place, "-c", ""], stderr=subprocess.DEVNULL).returncode
        )
        found.append(next(works, None) if minor != sys.version_info.minor else None)
    return list(filter(None, found))


def hashes(python: str, files: list[Path], **environment: str) -> list[str]:
    done = subprocess.run(
        [python, "-c", HASHES, str(PACKAGE / "study/fingerprint.py")],
        input="\n".join(map(str, files)),
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All Python of the project, and what the versions of Python have different ways with."""
    folder = tmp_path_factory.mktemp("tricky")
    for name, text in {"tricky.py": TRICKY, "long.py": LONG, **ODD}.items():
        (folder / name).write_text(text, encoding="utf-8")
    ast.parse((folder / "tricky.py").read_text(encoding="utf-8"))
    return sorted(
        file
        for root in (folder, PROJECT / "src", PROJECT / "workflow", PROJECT / "tests")
        for file in root.rglob("*.py")
    )


def test_fingerprint_is_independent_of_the_python_version(sources: list[Path]):
    others = other_pythons()
    if not others:
        pytest.skip("this machine has no other Python, 3.11 or newer")
    expected = hashes(sys.executable, sources)
    assert len(expected) == len(sources) > 100
    for other in others:
        assert hashes(other, sources) == expected, other


def test_fingerprint_is_independent_of_python_options(sources: list[Path]):
    expected = hashes(sys.executable, sources)
    assert hashes(sys.executable, sources, PYTHONWARNINGS="error", PYTHONOPTIMIZE="2", PYTHONUTF8="0") == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f'{a}'", "f'{b}'"),
        ("f'{a}'", "f'{a!r}'"),
        ("f'{a}'", "f'{a:>3}'"),
        ("f'{a} b'", "f'{a}  b'"),
        ("f'{a}'", "'{a}'"),
        ("None", "..."),
        ("1", "True"),
        ("'1'", "1"),
        ("'1'", "b'1'"),
        ("[1, 2]", "[[1], 2]"),
        ("(1, 2)", "[1, 2]"),
        ("{**a}", "{None: a}"),
        ("lambda a, /, b: 0", "lambda a, b: 0"),
        ("lambda *, a=None: 0", "lambda *, a: 0"),
        ("a[1:]", "a[:1]"),
        ("a.b(c=1)", "a.b(**{'c': 1})"),
        ("0.1", "0.10000000000000002"),
    ],
)
def test_different_code_has_different_fingerprints(checkout: Checkout, one: str, other: str):
    checkout.script.write_text(f"x = {one}", encoding="utf-8")
    before = checkout.fingerprint()
    checkout.script.write_text(f"x = {other}", encoding="utf-8")
    assert checkout.fingerprint() != before


@pytest.mark.parametrize(
    ("one", "other"), [("f'a' 'b' f'{c}'", 'f"ab{c}"'), ("0x10", "16"), ("u'a'", "'a'"), ("(a)", "a"), ("1_0", "10")]
)
def test_equivalent_code_has_equal_fingerprints(checkout: Checkout, one: str, other: str):
    checkout.script.write_text(f"x = {one}", encoding="utf-8")
    before = checkout.fingerprint()
    checkout.script.write_text(f"x = {other}", encoding="utf-8")
    assert checkout.fingerprint() == before


def with_cache(checkout: Checkout, file: Path) -> str:
    """Return the fingerprint of the script by a new process that keeps parsed code in a file."""
    return fresh_fingerprint(checkout.folder / "src" / "batchscape", checkout.script, cache_file=file)


def test_a_second_process_parses_only_what_is_new(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, parsed, parse = tmp_path / "cache" / "code.jsonl", [], ast.parse

    def record(content: str | bytes, *args: object, **options: object) -> ast.AST:
        parsed.append(content)
        return parse(content, *args, **options)

    monkeypatch.setattr(ast, "parse", record)
    expected = checkout.fingerprint()
    parsed.clear()
    assert with_cache(checkout, file) == expected
    assert len(parsed) > 50
    parsed.clear()
    assert with_cache(checkout, file) == expected
    assert not parsed
    checkout.script.write_text(SCRIPT + "train()\n", encoding="utf-8")
    assert with_cache(checkout, file) == checkout.fingerprint() != expected
    parsed.clear()
    checkout.script.write_text(SCRIPT, encoding="utf-8")
    assert with_cache(checkout, file) == expected
    assert not parsed


def test_an_edit_that_keeps_size_and_time_is_not_missed(checkout: Checkout, tmp_path: Path):
    module, file = checkout.module("io/files.py"), tmp_path / "code.jsonl"
    before, times = with_cache(checkout, file), module.stat()
    text = module.read_text(encoding="utf-8")
    module.write_text(
        text.replace("path.parent.mkdir(parents=True", "path.parent.mkdir(parents=None", 1), encoding="utf-8"
    )
    os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert module.stat().st_size == times.st_size
    assert with_cache(checkout, file) == checkout.fingerprint() != before


def test_parsed_code_of_another_version_of_the_library_is_not_used(checkout: Checkout, tmp_path: Path):
    file = tmp_path / "code.jsonl"
    before = with_cache(checkout, file)
    code = checkout.module("study/fingerprint.py")
    code.write_text(code.read_text(encoding="utf-8").replace('f"({type(node).__name__}"', '"("'), encoding="utf-8")
    assert with_cache(checkout, file) == checkout.fingerprint() != before


@pytest.mark.parametrize("damage", ["half a line", "no JSON", "other JSON", "a folder", "no text"])
def test_a_damaged_cache_of_parsed_code_is_no_error(checkout: Checkout, tmp_path: Path, damage: str):
    file = tmp_path / "code.jsonl"
    expected = with_cache(checkout, file)
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        damaged = {"half a line": content[:-30], "no JSON": b"}{\n" + content, "no text": b"\xff\xfe\n" + content}
        file.write_bytes(damaged.get(damage, b'5\n["a"]\n["a", 5]\n["a", ["b", 5]]\n' + content))
    assert with_cache(checkout, file) == expected
    assert with_cache(checkout, file) == expected
