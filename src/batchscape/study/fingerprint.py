"""A hash of the code that a job runs, ignoring comments, formatting and docstrings."""

import ast
import hashlib
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

from batchscape.runtime.workflow import FOLDER_IN_PACKAGE
from batchscape.study.parsed_code import ParseCache, ParsedCode

PACKAGE = Path(__file__).resolve().parents[1]
# Folders of installed packages, the second one Debian's.
INSTALLED = {"site-packages", "dist-packages"}

_hashes: dict[Path, str] = {}


def fingerprint(*roots: Path, cache_file: Path | None = None) -> str:
    """Return a hash of the given Python files and of every batchscape module that they import, however deep.

    For custom modules, the package and its imports from that package count too, and its imports from the folder that
    contains it and from the working directory. Of an installed package instead all files count, byte by byte, because
    it may be large (parsing timm takes ten seconds, in each job). Files with the same statements have the same hash
    under every version of Python that can parse them. Only static imports are followed: a module that is imported by
    name at run time must be a root. Files that are not Python, such as templates, must be roots too; these, and invalid
    Python, are hashed byte by byte.

    Args:
        roots: The files.
        cache_file: Where to keep what was parsed, see `ParseCache`; None parses all files.
    """
    return _fingerprint(tuple(sorted({Path(root).resolve() for root in roots})), cache_file)


def hashed_files() -> dict[str, str]:
    """Return the SHA-256 of each file that fingerprints are of so far, by its path, except for installed packages."""
    return {str(path.resolve()): digest for path, digest in _hashes.items()}


def module_path(dotted: str) -> Path:
    """Return the file of a batchscape module, such as `batchscape.report.tables.distance`."""
    return PACKAGE.parent.joinpath(*dotted.split(".")).with_suffix(".py")


@cache
def _fingerprint(roots: tuple[Path, ...], cache_file: Path | None) -> str:
    seen: dict[Path, str] = {}
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path], imported = _read(path, cache_file)
            waiting.extend(imported)
    digest = hashlib.sha256()
    for path in sorted(seen, key=_label):
        digest.update(f"{_label(path)}\n{seen[path]}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _label(path: Path) -> str:
    """Return a file's name without the folder of the checkout or of the installed package."""
    is_library = path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / FOLDER_IN_PACKAGE)
    return path.relative_to(PACKAGE if is_library else _base(path)).as_posix()


@cache
def _base(path: Path) -> Path:
    """Return the folder that a module's dotted name starts from: the first parent that is not a package."""
    return next(folder for folder in path.parents if not (folder / "__init__.py").exists())


@cache
def _read(path: Path, cache_file: Path | None = None) -> tuple[str, frozenset[Path]]:
    """Return the hash of a file and the files that it imports."""
    if INSTALLED.intersection(_base(path).parts) and not path.is_relative_to(PACKAGE):
        return _hash_installed(path), frozenset()
    content = path.read_bytes()
    _hashes[path] = hashlib.sha256(content).hexdigest()
    parsed = _cache(cache_file).get(content, _parse) if path.suffix == ".py" else None
    if parsed is None:
        return _hashes[path], frozenset()
    imported = set(takewhile(Path.exists, (folder / "__init__.py" for folder in path.parents)))  # its packages
    for level, name in parsed.imports:
        imported.update(_below(path.parents[level - 1], name) if level else _files(name, path))
    return parsed.digest, frozenset(imported)


@cache
def _cache(file: Path | None) -> ParseCache:
    # Another version of this module, or of Python, may parse the same code to something else.
    return ParseCache(file, version=Path(__file__).read_bytes() + repr(sys.version_info[:2]).encode())


def _parse(content: bytes) -> ParsedCode | None:
    """Return the hash of the statements of a module and what they import; None for invalid Python."""
    try:
        with warnings.catch_warnings():
            # With PYTHONWARNINGS=error an escape such as "\d" would be a syntax error, and another hash.
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError):  # the job that imports it says so
        return None
    imports: dict[tuple[int, str], None] = {}
    for node in _with_blocks(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(dict.fromkeys(_imported_names(node)))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [child for child in node.body if not _is_bare_text(child)] or [ast.Pass()]
    return ParsedCode(hashlib.sha256(_normal_form(tree).encode()).hexdigest(), tuple(imports))


def _hash_installed(path: Path) -> str:
    """Return a hash of all Python files of the package, in a folder of installed packages, that a file belongs to."""
    base = _base(path)
    package = base / path.relative_to(base).parts[0]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")) or [path]:  # or a single module
        content = file.read_bytes()
        digest.update(f"{file.relative_to(base).as_posix()}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _normal_form(tree: ast.AST) -> str:
    """Return a tree as text, the same text under every version of Python.

    Neither `ast.unparse` nor `ast.dump` is: they differ in the quotes and parts of f-strings, in which empty fields
    they write, and `repr` in which characters it escapes.
    """
    parts = []
    waiting: list[object] = [tree]  # no recursion, whose limit a long expression could reach
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.AST):
            # A field that a later version adds is empty in what an earlier one can parse.
            fields = [(name, value) for name, value in _fields(node) if value not in (None, [])]
            parts.append(f"({type(node).__name__}")
            waiting.append(_END)
            for name, value in reversed(fields):
                waiting += [value, _Name(name)]
        elif isinstance(node, list):
            parts.append("[")
            waiting += [_END, *reversed(node)]
        elif isinstance(node, _Name):
            parts.append(node)
        elif isinstance(node, int) and not isinstance(node, bool):
            parts.append(hex(node))  # decimal has a limit of digits
        else:
            parts.append(ascii(node))
    return " ".join(parts)


class _Name(str):
    """The name of a field, not a value."""


_END = _Name(")")


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Yield the fields of a node that matter, with f-strings as the latest version of Python parses them."""
    for name, value in ast.iter_fields(node):
        if name == "kind" and isinstance(node, ast.Constant):  # the prefix of u"text"
            continue
        if name == "values" and isinstance(node, ast.JoinedStr):
            value = _merge_constants(value)
        yield name, value


def _merge_constants(parts: list[ast.expr]) -> list[ast.expr]:
    """Merge adjacent constants of an f-string: where they are split depends on the version of Python."""
    merged: list[ast.expr] = []
    for part in parts:
        last = merged[-1] if merged else None
        if not (isinstance(part, ast.Constant) and isinstance(part.value, str)):
            merged.append(part)
        elif isinstance(last, ast.Constant) and isinstance(last.value, str):
            merged[-1] = ast.Constant(last.value + part.value)
        elif part.value:
            merged.append(part)
    return merged


def _with_blocks(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a module or statement and all statements in it, but no expressions, which are nine tenths of the tree."""
    yield node
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, block, ()):
            yield from _with_blocks(child)


def _imported_names(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    """Yield the dotted names that an import statement may import, with the number of dots before each."""
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
        return
    module = [node.module] if node.module else []
    for name in ([], *([alias.name] for alias in node.names)):
        if module + name:
            yield node.level, ".".join(module + name)


def _files(name: str, path: Path) -> list[Path]:
    """Return the files that importing a dotted name runs, of those that count for the file that imports it."""
    if name.partition(".")[0] == PACKAGE.name:
        return _below(PACKAGE.parent, name)
    return [file for folder in {_base(path), Path.cwd()} for file in _below(folder, name)]


@cache
def _below(folder: Path, name: str) -> list[Path]:
    """Return the module of a dotted name and its parent packages, if they are in this folder."""
    parts = name.split(".")
    packages = [folder.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [file for file in (*packages, folder.joinpath(*parts).with_suffix(".py")) if file.exists()]


def _is_bare_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
