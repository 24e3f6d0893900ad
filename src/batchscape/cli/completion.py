"""`batchscape completion`: completion of the commands in a shell."""

from argparse import ArgumentParser
from pathlib import Path

import shtab


def completion(parser: ArgumentParser, shell: str) -> str:
    """Return a script that completes the commands, options and files of a parser in a shell."""
    _complete_paths(parser)
    return shtab.complete(parser, shell)


def _complete_paths(parser: ArgumentParser) -> None:
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == "FOLDER" else shtab.FILE  # type: ignore[attr-defined]
        for command in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            _complete_paths(command)
