"""Progress of many evaluations in the log."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from batchscape.runtime.duration import format_duration

Point = TypeVar("Point")
Result = TypeVar("Result")

# Seconds.
LOG_INTERVAL = 30.0

log = logging.getLogger(__name__)


def map_with_progress(
    evaluate: Callable[[Point], Result], points: Iterable[Point], total: int, description: str
) -> Iterator[Result]:
    """Yield `evaluate(point)` for each of `total` points, in order, and log the progress.

    The first point is evaluated twice, the second time to estimate the total time; this estimate is logged first, then
    the progress every 30 s, and the time at the end. `description` says what is evaluated, such as `the loss`.
    """
    points = iter(points)
    first = next(points)
    result = evaluate(first)
    started = time.perf_counter()
    evaluate(first)
    seconds_each = time.perf_counter() - started
    log.info("%d evaluations of %s, about %s", total, description, format_duration(seconds_each * total))
    started = last_logged = time.perf_counter()
    yield result
    for done, point in enumerate(points, start=2):
        yield evaluate(point)
        now = time.perf_counter()
        if now - last_logged >= LOG_INTERVAL and done < total:
            last_logged = now
            remaining = format_duration((now - started) / done * (total - done))
            log.info("%d of %d (%d %%), about %s left", done, total, 100 * done // total, remaining)
    log.info("%d of %d in %s", total, total, format_duration(time.perf_counter() - started))
