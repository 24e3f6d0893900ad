"""A hash of the code that a job runs, blind to comments, formatting and docstrings of Python."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def fingerprint(*roots: Path) -> str:
    """Return a hash of the given Python files and of every batchscape module that they import, however deep.

    Of a module of the user's own, what it imports of its package counts too, and if it is installed nowhere, of all
    that stands beside it. Two texts with the same statements have the same hash. Only static imports are followed: a
    module that is imported by name at run time must be given as a root. So must a file that is not Python, such as a
    template; it counts byte for byte.
    """
    return _fingerprint(tuple(sorted({Path(root).resolve() for root in roots})))


def module_path(dotted: str) -> Path:
    """Return the file of a batchscape module, such as `batchscape.report.tables.distance`."""
    return PACKAGE.parent.joinpath(*dotted.split(".")).with_suffix(".py")


@cache
def _fingerprint(roots: tuple[Path, ...]) -> str:
    seen: dict[Path, str] = {}
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path], imported = _read(path)
            waiting.extend(imported)
    digest = hashlib.sha256()
    for path in sorted(seen, key=_label):
        digest.update(f"{_label(path)}\n{seen[path]}\n".encode())
    return digest.hexdigest()[:16]


def _label(path: Path) -> str:
    """Name a file without the folder that the checkout happens to stand in."""
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else _base(path)).as_posix()


def _base(path: Path) -> Path:
    """The folder that a module's dotted name starts from: the first one above it that is no package."""
    return next(folder for folder in path.parents if not (folder / "__init__.py").exists())


@cache
def _read(path: Path) -> tuple[str, frozenset[Path]]:
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8"), frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = frozenset(
        file for node in ast.walk(tree) for name in _imports(node, path) for file in _files(name, path)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [child for child in node.body if not _is_bare_text(child)] or [ast.Pass()]
    return ast.unparse(tree), imported


def _imports(node: ast.AST, path: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = path.relative_to(_base(path)).parts[: -node.level] if node.level else ()
        module = ".".join([*above, *([node.module] if node.module else [])])
        return [name for name in (module, *(f"{module}.{alias.name}" for alias in node.names)) if name.strip(".")]
    return []


def _files(name: str, path: Path) -> list[Path]:
    """The files that importing a dotted name runs, of those that count for the file that imports it: the module and the
    packages above it."""
    parts = name.split(".")
    base = PACKAGE.parent if parts[0] == PACKAGE.name else _base(path)
    if "site-packages" in base.parts and parts[0] != path.relative_to(base).with_suffix("").parts[0]:
        return []  # another package that is installed
    packages = [base.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [file for file in (*packages, base.joinpath(*parts).with_suffix(".py")) if file.exists()]


def _is_bare_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
