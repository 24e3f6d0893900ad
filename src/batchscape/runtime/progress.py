"""What the log says of a long row of evaluations: how many, how long, how far."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from batchscape.runtime.duration import format_duration

Point = TypeVar("Point")
Result = TypeVar("Result")

SECONDS_BETWEEN_LINES = 30.0

log = logging.getLogger(__name__)


def map_with_progress(
    evaluate: Callable[[Point], Result], points: Iterable[Point], count: int, what: str
) -> Iterator[Result]:
    """Yield `evaluate(point)` for each of `count` points, in order, and log what a person who waits wants to know.

    Before the work there is one line with the number of evaluations and the time that they will take, by one trial
    after a first one that warms up; then a line every half a minute, and one at the end. `what` names an evaluation.
    """
    points = iter(points)
    first = next(points)
    result = evaluate(first)
    started = time.perf_counter()
    evaluate(first)
    each = time.perf_counter() - started
    log.info("%d evaluations of %s, about %s", count, what, format_duration(each * count))
    started = told = time.perf_counter()
    yield result
    for done, point in enumerate(points, start=2):
        yield evaluate(point)
        now = time.perf_counter()
        if now - told >= SECONDS_BETWEEN_LINES and done < count:
            told = now
            left = (now - started) / done * (count - done)
            log.info("%d of %d (%d %%), about %s left", done, count, 100 * done // count, format_duration(left))
    log.info("%d of %d in %s", count, count, format_duration(time.perf_counter() - started))
