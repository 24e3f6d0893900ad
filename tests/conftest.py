"""How the tests are shared between processes: four for two cores, for those of Slurm mostly wait."""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

# Where it is set, each of a thousand processes would compile the library anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Before anything imports them: their asserts then show their values, as those of tests do.
pytest.register_assert_rewrite("tests.helpers")

# They look at the one study that nothing disturbed.
ON_THE_STRESS_STUDY = (
    "tests/workflow/test_image_folder.py",
    "tests/workflow/test_killed_study.py",
    "tests/workflow/test_slurm_study.py",
)
# What takes minutes, in the order in which it begins. The first makes the finished study; others have copies of it.
LONG = (
    "tests/workflow/test_study.py",
    *ON_THE_STRESS_STUDY,
    "tests/workflow/test_slurm.py",
    "tests/workflow/test_disk.py",
    "tests/workflow/test_staleness.py",
    "tests/unit/training/test_distributed.py",
    "tests/workflow/test_bad_input.py",
)
# Of minutes, and of tests that share nothing that takes long to make.
MANY = "tests/workflow/test_staleness.py"


class BySharedWork(LoadScopeScheduling):
    """A file is a process's to run, and so are all files on the stress study, which takes minutes to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in ON_THE_STRESS_STUDY:
            return "stress study"
        return nodeid.partition("[")[0] if file == MANY else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that all processes end at the same time: the order is kept by xdist's option."""
    place = {file: index for index, file in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySharedWork:
    return BySharedWork(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=25, help="how often tests/workflow/test_killed_study.py kills")
