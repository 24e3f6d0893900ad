"""Custom code of the user: import it, call it, and report its errors in one line."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from batchscape.errors import UserError
from batchscape.runtime.loaded_code import require_unedited_code

# Operators of torchvision by name, with their libraries, which remove them when they are deleted.
_DECLARED: dict[str, Any] = {}


def module_file(import_path: str, key: str) -> Path:
    """Return the file of a module without running any code of it.

    Args:
        import_path: `package.module:name`.
        key: Key of the study file that holds the import path, for the message.

    Raises:
        UserError: If there is no such module.
    """
    module = import_path.partition(":")[0]
    top, *submodules = module.split(".")
    # As an import in a new process would find it: regardless of loaded modules, and not this process's `__main__`.
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if top != "__main__")
    spec = next(filter(None, specs), None)
    candidates = [Path(spec.origin)] if spec and spec.origin else []
    if submodules:  # importlib.util.find_spec would run the parent packages
        folders = (spec.submodule_search_locations or []) if spec else []
        bases = [Path(folder).joinpath(*submodules) for folder in folders]
        candidates = [path for base in bases for path in (base / "__init__.py", base.with_suffix(".py"))]
    file = next(filter(Path.exists, candidates), None)
    if file is None and submodules == ["py"]:
        raise UserError(f"{key}: drop the `.py` suffix; write `{top}:{import_path.partition(':')[2]}`")
    if file is None:
        raise UserError(
            f"{key}: there is no module {module}; create {module.replace('.', '/')}.py beside the Snakefile, or "
            "install its package"
        )
    return file


def import_object(import_path: str, key: str) -> Callable[..., Any]:
    """Import the class or function at an import path.

    Args:
        import_path: `package.module:name`.
        key: Key of the study file that holds the import path, for the message.

    Raises:
        UserError: If the module does not exist or cannot be imported, it or a module that it imports was edited since
            Snakemake started, or the name is no class or function in it.
    """
    module, _, name = import_path.partition(":")
    file = module_file(import_path, key)
    try:
        value = getattr(_import_module(module), name, None)
    except (Exception, SystemExit) as error:  # custom code can raise anything
        raise UserError(f"{key}: {module} cannot be imported: {summarize_error(error, file)}")
    require_unedited_code()
    if not callable(value):
        problem = "is not a class or function" if value is not None else "does not exist"
        raise UserError(f"{key}: {name} {problem} in {file.name}; check the name after the colon")
    return value


def _import_module(name: str) -> ModuleType:
    """Import a module, if need be with a torchvision whose compiled operators do not load.

    That is the case of its wheels on PyPI, which are compiled for CUDA, beside a torch without CUDA. To import it then
    takes no more than declarations of the operators that it registers functions for; no network needs the operators.
    """
    while True:
        if "torchvision" not in sys.modules:  # or parts of a failed import would not be bound to their package again
            for part in [module for module in sys.modules if module.startswith("torchvision.")]:
                del sys.modules[part]
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing or missing[1] in _DECLARED:
                raise
        _declare_torchvision_operator(missing[1])


def _declare_torchvision_operator(name: str) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{name}(Tensor inputs) -> Tensor")
    _DECLARED[name] = library


def describe_mismatch(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    """Return why a function does not accept arguments, with its parameters; empty if it does, or if that is unknown."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it has none that can be inspected
        return ""
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        parameters = ", ".join(map(str, signature.parameters.values())) or "none"
        return f"{error}; its parameters are: {parameters}"
    return ""


def call_user_code(function: Callable[..., Any], arguments: Mapping[str, Any], import_path: str, key: str) -> Any:
    """Call a function or class of the user.

    Args:
        function: What to call.
        arguments: Keyword arguments.
        import_path: Where the function is from, for messages.
        key: Section of the study file that holds the arguments, for messages.

    Returns:
        What the function returns.

    Raises:
        UserError: If the function does not accept the arguments, or raises an exception.
    """
    if mismatch := describe_mismatch(function, **arguments):
        raise UserError(f"{key}.arguments: {import_path} does not accept them: {mismatch}")
    try:
        return function(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {import_path} fails: {summarize_error(error)}")


def overridden_methods(instance: object, base: str) -> set[str] | None:
    """Return the methods that the class of an object defines beyond a class of Lightning.

    Args:
        instance: Any object.
        base: `LightningModule` or `LightningDataModule`. It is recognized by name, because an import of Lightning takes
            a second, and there are two packages that define it.

    Returns:
        The names of all attributes that its classes outside Lightning define; None if it is no instance of the base.
    """
    classes = type(instance).__mro__
    if not any(cls.__name__ == base and _is_from_lightning(cls) for cls in classes):
        return None
    own = [cls for cls in classes if not _is_from_lightning(cls) and cls.__module__.partition(".")[0] != "torch"]
    return {name for cls in own if cls is not object for name in vars(cls)}


def _is_from_lightning(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric")


def summarize_error(error: BaseException, file: Path | None = None) -> str:
    """Return an error of custom code as one line, with the last line of that code that the error passed through.

    Args:
        error: The exception.
        file: The only file whose lines count; by default, all files but those of Python, packages and this library.
    """
    frames = _frames(error)
    ignored = (str(Path(__file__).parents[1]), sys.prefix, sys.base_prefix, "<")
    custom = [(name, line) for name, line in frames if file is None or Path(name) == file]
    custom = [(name, line) for name, line in custom if not name.startswith(ignored)]
    location = f" ({Path(custom[-1][0]).name}, line {custom[-1][1]})" if custom else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{location}"


def _frames(error: BaseException) -> list[tuple[str, int]]:
    """Return file and line of each frame that an error passed through, outermost first."""
    trace, frames = error.__traceback__, []
    while trace:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return frames
