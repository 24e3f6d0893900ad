"""What the log says while a source is read: how far it is, and how long it takes."""

import logging
import time

from batchscape.runtime.duration import format_duration

SECONDS_BETWEEN_LINES = 10.0

log = logging.getLogger(__name__)


class Progress:
    """Logs a line at most every ten seconds, and one at the end.

    It has the interface of a progress bar that pooch asks for: `total`, `update`, `reset` and `close`.
    """

    def __init__(self, unit: str, total: int = 0, units: int = 1):
        """`total` is 0 while it is not known; `units` of what is counted are one of the log's, which `unit` names."""
        self.total = total
        self._unit, self._units = unit, units
        self._done = 0
        self._started = self._told = time.monotonic()

    def update(self, count: int) -> None:
        """Count what was done since."""
        self._done += count
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = now
        if self._done < self.total:
            left = (now - self._started) / self._done * (self.total - self._done)
            share = 100 * self._done // self.total
            log.info("%s of %s (%d %%), about %s left", *self._amounts(), share, format_duration(left))
        elif not self.total:
            log.info("%s %s", self._amounts()[0], self._unit)

    def reset(self) -> None:
        """Count from nothing again."""
        self._done = 0

    def close(self) -> None:
        """Say that it is done."""
        log.info("%s %s in %s", self._amounts()[0], self._unit, format_duration(time.monotonic() - self._started))

    def _amounts(self) -> tuple[str, str]:
        return f"{self._done // self._units:,}", f"{self.total // self._units:,} {self._unit}"
