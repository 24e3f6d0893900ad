"""How a run is executed: the settings of a Snakemake job."""

from types import SimpleNamespace

import pytest

from batchscape.training import execution
from batchscape.training.execution import Execution


@pytest.mark.parametrize(("threads", "devices", "threads_each"), [(4, 1, 4), (4, 2, 2), (1, 2, 1)])
def test_devices_divide_the_threads_of_a_job(
    threads: int, devices: int, threads_each: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(execution, "job_end_time", lambda: 5.0)
    resources = SimpleNamespace(devices=devices, nodes=3, jobs_per_gpu=2)
    job = Execution.of_job(threads, resources, "code")
    assert job == Execution(threads_each, devices, nodes=3, deadline=5.0, code="code", jobs_per_gpu=2)
    assert job.num_processes == 3 * devices
