"""GPUs that trainings request."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("keys", "on_cluster", "said"),
    [
        (
            "",
            True,
            "0 (training.accelerator: auto requests none on a cluster; write `accelerator: gpu` to train on GPUs)",
        ),
        ("", False, "1 if the machine has GPUs, else 0"),
        (
            "",
            None,
            "1 if the machine has GPUs, 0 on a cluster (training.accelerator: auto requests none on a cluster; ",
        ),
        ("training: {accelerator: gpu}", True, "1"),
        ("training: {accelerator: gpu}\nresources: {devices: 4}", False, "4"),
        ("training: {accelerator: gpu}\nresources: {devices: 2, nodes: 3}", True, "2 on each of 3 nodes"),
        ("training: {accelerator: cpu}", True, "0 (training.accelerator: cpu)"),
    ],
)
def test_number_of_gpus_per_training_is_described(study: Callable, keys: str, on_cluster: bool | None, said: str):
    line = study(f"name: s\n{keys}\n").job_resources.describe_gpus(on_cluster)
    if said.endswith("; "):
        assert line.startswith(f"GPUs per training: {said}")
    else:
        assert line == f"GPUs per training: {said}"
