"""The user's own code, by import path: where it stands, and what it gives."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batchscape.errors import UserError


def module_file(import_path: str, key: str) -> Path:
    """Return the file of `package.module:name`, without running anything. Raises UserError if there is none.

    `key` is that of the study file, for the message.
    """
    module = import_path.partition(":")[0]
    top, *below = module.split(".")
    # As an import in a fresh process would: not among the modules that this one has loaded, nor its own `__main__`.
    found = (finder.find_spec(top, None) for finder in sys.meta_path if top != "__main__")
    spec = next(filter(None, found), None)
    places = [spec.origin] if spec and spec.origin else []
    if below:  # looked for by hand, because that function would run the packages on the way
        bases = [Path(folder).joinpath(*below) for folder in (spec.submodule_search_locations or [])] if spec else []
        places = [place for base in bases for place in (base / "__init__.py", base.with_suffix(".py"))]
    file = next((place for place in map(Path, places) if place.exists()), None)
    if file is None and below == ["py"]:
        raise UserError(f"{key}: a module is named without its ending; write `{top}:{import_path.partition(':')[2]}`")
    if file is None:
        raise UserError(
            f"{key}: there is no module {module}; write it beside the Snakefile as {module.replace('.', '/')}.py, "
            "or install it"
        )
    return file


def import_object(import_path: str, key: str) -> Callable[..., Any]:
    """Return the class or function that `package.module:name` names. Raises UserError if there is none."""
    module, _, name = import_path.partition(":")
    file = module_file(import_path, key)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise UserError(f"{key}: {module} cannot be imported: {summarize_error(error, file)}")
    if not callable(found):
        what = "is no class or function" if found is not None else "is not there"
        raise UserError(f"{key}: {name} {what} in {file.name}; mend the name behind the colon")
    return found


def call_user_code(function: Callable[..., Any], arguments: Mapping[str, Any], import_path: str, key: str) -> Any:
    """Return what the user's function gives. Raises UserError if it does not take the arguments, or fails.

    `key` is the section of the study file that has the arguments.
    """
    try:
        signature = inspect.signature(function)
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(map(str, signature.parameters.values())) or "none"
        raise UserError(f"{key}.arguments: {import_path} does not take them: {error}; its parameters are: {takes}")
    except ValueError:  # it has no signature that can be looked at
        pass
    try:
        return function(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {import_path} fails: {summarize_error(error)}")


def summarize_error(error: BaseException, file: Path | None = None) -> str:
    """Return in one line what the user's code raised, and the last line of it that the error came through.

    That line is looked for in `file` alone if one is given.
    """
    frames = [(frame.f_code.co_filename, line) for frame, line in _frames(error)]
    own = [(name, line) for name, line in frames if file is None or Path(name) == file]
    library = str(Path(__file__).parents[1])
    own = [(name, line) for name, line in own if not name.startswith((library, sys.prefix, sys.base_prefix, "<"))]
    where = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _frames(error: BaseException) -> list[tuple[Any, int]]:
    trace, frames = error.__traceback__, []
    while trace:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames
