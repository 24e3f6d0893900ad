"""How the tests are shared between processes: three for two cores, for those of Slurm mostly wait."""

import pytest
from xdist.scheduler import LoadScopeScheduling

# Fixtures of several files.
pytest_plugins = ["tests.workflow.cluster", "tests.workflow.stress"]

# They look at, and edit, the one finished study of their process.
ON_THE_FINISHED_STUDY = (
    "tests/workflow/test_house.py",
    "tests/workflow/test_new_analysis.py",
    "tests/workflow/test_report_in_browser.py",
    "tests/workflow/test_snakemake_report.py",
    "tests/workflow/test_staleness.py",
    "tests/workflow/test_study.py",
)


# And these at the one that nothing disturbed.
ON_THE_STRESS_STUDY = (
    "tests/workflow/test_image_folder.py",
    "tests/workflow/test_killed_study.py",
    "tests/workflow/test_slurm_study.py",
)
# Files of minutes.
LONG = (*ON_THE_STRESS_STUDY, "tests/workflow/test_slurm.py")


class BySharedWork(LoadScopeScheduling):
    """A file is a process's to run, and so are all files on the finished study, which takes minutes to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in ON_THE_STRESS_STUDY:
            return "stress study"
        return "finished study" if file in ON_THE_FINISHED_STUDY else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that all processes end at the same time: the order is kept by xdist's option."""
    items.sort(key=lambda item: not item.nodeid.startswith(ON_THE_FINISHED_STUDY + LONG))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySharedWork:
    return BySharedWork(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=25, help="how often tests/workflow/test_killed_study.py kills")
