"""The device of a job."""

import logging

import pytest
import torch

from batchscape.runtime import device
from batchscape.runtime.device import choose_device, has_kernels

# Architectures that some releases of torch were built for.
OLD = ["sm_37", "sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86"]
NEW = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built_for", "can_run"),
    [
        ((3, 7), OLD, True),
        ((3, 7), NEW, False),
        ((6, 1), OLD, True),
        ((7, 0), NEW, False),
        ((8, 9), NEW, True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), OLD, False),
        ((10, 3), NEW, True),
        ((12, 1), NEW, True),
        ((13, 0), NEW, True),
        ((9, 0), [*OLD, "compute_86"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((9, 4), ["gfx90a", "gfx942"], True),
    ],
)
def test_has_kernels_follows_from_the_compute_capability(
    capability: tuple[int, int], built_for: list[str], can_run: bool
):
    assert has_kernels(capability, built_for) == can_run


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch):
    """A Tesla K80, as reported by a torch that is too new for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla K80")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (3, 7))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: NEW)
    for function in (device._gpu_problem, device._warn_once):
        function.cache_clear()
    yield
    for function in (device._gpu_problem, device._warn_once):
        function.cache_clear()


@pytest.mark.usefixtures("old_gpu")
def test_a_gpu_without_kernels_is_not_used(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "batchscape"):
        assert choose_device("auto") == choose_device("auto") == torch.device("cpu")
    assert len(caplog.messages) == 1
    assert "no kernels for Tesla K80 of compute capability 3.7" in caplog.messages[0]
    assert "on the CPU" in caplog.messages[0]


@pytest.mark.usefixtures("old_gpu")
def test_a_gpu_without_kernels_is_refused_if_requested(refusal, caplog: pytest.LogCaptureFixture):
    message = refusal(choose_device, "gpu")
    assert message.startswith("training.accelerator: `gpu`, but torch")
    assert "Tesla K80" in message
    assert not caplog.messages


@pytest.mark.usefixtures("old_gpu")
def test_a_gpu_that_the_driver_refuses_is_an_error_of_one_line(refusal, monkeypatch: pytest.MonkeyPatch):
    def busy():
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might …")

    monkeypatch.setattr(torch.cuda, "get_device_name", busy)
    assert "devices are busy or unavailable; " in refusal(choose_device, "auto")
    assert choose_device("cpu") == torch.device("cpu")
