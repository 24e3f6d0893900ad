"""Progress in the log."""

import logging

import pytest

from batchscape.runtime.progress import map_with_progress


def test_progress_logs_the_estimated_time_first_and_then_the_progress(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("batchscape.runtime.progress.time.perf_counter", lambda: float(next(clock)))
    caplog.set_level(logging.INFO)
    results = map_with_progress(lambda number: number**2, range(1, 21), 20, "the loss over 7 images")
    assert next(results) == 1
    assert caplog.messages == ["20 evaluations of the loss over 7 images, about 3 min"]
    assert list(results) == [number**2 for number in range(2, 21)]
    progress = [message for message in caplog.messages if "left" in message]
    assert 3 <= len(progress) <= 8
    assert progress[0] == "4 of 20 (20 %), about 2 min left"  # 30 s for four
    assert caplog.messages[-1].startswith("20 of 20 in")
