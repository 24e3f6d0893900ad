"""Progress of reading a data source, in the log."""

import logging
import time

from batchscape.runtime.duration import format_duration

# Seconds.
LOG_INTERVAL = 10.0

log = logging.getLogger(__name__)


class Progress:
    """Logs the progress at most every 10 s, and the total time at the end.

    It has the interface of a progress bar that pooch requires: `total`, `update`, `reset` and `close`.
    """

    def __init__(self, unit: str, total: int = 0, units: int = 1):
        """Log `unit`, which is `units` of the counted items, such as MB of bytes; `total` is 0 while it is unknown."""
        self.total = total
        self._unit, self._units = unit, units
        self._done = 0
        self._started = self._last_logged = time.monotonic()

    def update(self, count: int) -> None:
        """Add to the count."""
        self._done += count
        now = time.monotonic()
        if now - self._last_logged < LOG_INTERVAL:
            return
        self._last_logged = now
        if self._done < self.total:
            remaining = (now - self._started) / self._done * (self.total - self._done)
            percent = 100 * self._done // self.total
            log.info("%s of %s (%d %%), about %s left", *self._amounts(), percent, format_duration(remaining))
        elif not self.total:
            log.info("%s %s", self._amounts()[0], self._unit)

    def reset(self) -> None:
        """Reset the count to 0."""
        self._done = 0

    def close(self) -> None:
        """Log the final count and the time."""
        log.info("%s %s in %s", self._amounts()[0], self._unit, format_duration(time.monotonic() - self._started))

    def _amounts(self) -> tuple[str, str]:
        return f"{self._done // self._units:,}", f"{self.total // self._units:,} {self._unit}"
