"""What fingerprints need of Python code, cached in a file: parsing the library takes more than half of a plan."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class ParsedCode(NamedTuple):
    """What a fingerprint needs of a Python file.

    Attributes:
        digest: A hash of its statements.
        imports: What it may import: the dots before a name, and the name.
    """

    digest: str
    imports: tuple[tuple[int, str], ...]


class ParseCache:
    """Parsed code by its bytes, in a file with a line for each.

    An edit is found whatever it does to the time and size of a file. Lines are only appended, so that several processes
    can use the file; a line that one of them wrote in part is ignored. A file that cannot be read or written is no
    error: the code is parsed again.
    """

    def __init__(self, file: Path | None, version: bytes):
        """Read the file.

        Args:
            file: The file, which need not exist; None keeps everything in memory.
            version: What the parsed code depends on besides the bytes of a file.
        """
        self._file, self._version = file, version
        self._known: dict[str, ParsedCode | None] = {}
        with suppress(OSError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file else ():
                with suppress(ValueError, TypeError):
                    key, parsed = json.loads(line)
                    self._known[key] = parsed and ParsedCode(parsed[0], tuple((dots, name) for dots, name in parsed[1]))

    def get(self, content: bytes, parse: Callable[[bytes], ParsedCode | None]) -> ParsedCode | None:
        """Return what the bytes of a file parse to; None if they are no Python."""
        key = hashlib.sha256(self._version + b"\0" + content).hexdigest()
        if key not in self._known:
            self._known[key] = parse(content)
            self._append(key)
        return self._known[key]

    def _append(self, key: str) -> None:
        if self._file is None:
            return
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([key, self._known[key]]) + "\n")
