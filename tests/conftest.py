"""How tests are distributed over processes: four on two cores, because the Slurm tests mostly wait."""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

# With it, each of a thousand processes would compile the library again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Before anything imports them: their asserts then show their values, as those of tests do.
pytest.register_assert_rewrite("tests.helpers")

# These use the `stress` fixture: one study for all of them.
STRESS_STUDY_FILES = (
    "tests/workflow/test_image_folder.py",
    "tests/workflow/test_killed_study.py",
    "tests/workflow/test_slurm_study.py",
)
# Files that take minutes, in the order in which they start. The first runs the finished study, which others copy.
SLOW_FILES = (
    "tests/workflow/test_study.py",
    *STRESS_STUDY_FILES,
    "tests/workflow/test_slurm.py",
    "tests/workflow/test_disk.py",
    "tests/workflow/test_staleness.py",
    "tests/unit/training/test_distributed.py",
    "tests/unit/report/figures/test_figures.py",
    "tests/workflow/test_machines.py",
    "tests/workflow/test_partial_report.py",
    "tests/unit/report/claims/test_claims.py",
    "tests/benchmarks/test_benchmarks.py",
    "tests/workflow/test_bad_input.py",
    "tests/workflow/test_package.py",
)
# Takes minutes, and its tests share only a copy of the finished study: they run in several processes.
SPLIT_FILE = "tests/workflow/test_staleness.py"


class SharedFixtureScheduling(LoadScopeScheduling):
    """Run the tests of a file in one process, and all files on the stress study, which takes minutes to run, too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in STRESS_STUDY_FILES:
            return "stress study"
        return nodeid.partition("[")[0] if file == SPLIT_FILE else file


def has_gpu() -> bool:
    # Only the processes that collect tests of GPUs import torch for this.
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start slow files first, so that all processes end at the same time; xdist's option preserves this order.

    Tests marked `gpu` are skipped without one.
    """
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU here: what this tests on GPUs is not tested"))
    position = {file: index for index, file in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: position.get(item.nodeid.partition("::")[0], len(SLOW_FILES)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SharedFixtureScheduling:
    return SharedFixtureScheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=25, help="number of kills in tests/workflow/test_killed_study.py")
