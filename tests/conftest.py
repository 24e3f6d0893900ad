"""How the tests are shared between two processes."""

import pytest
from xdist.scheduler import LoadScopeScheduling

# They look at, and edit, the one finished study of their process.
ON_THE_FINISHED_STUDY = (
    "tests/workflow/test_house.py",
    "tests/workflow/test_report_in_browser.py",
    "tests/workflow/test_snakemake_report.py",
    "tests/workflow/test_staleness.py",
    "tests/workflow/test_study.py",
)


class BySharedWork(LoadScopeScheduling):
    """A file is a process's to run, and so are all files on the finished study, which takes minutes to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "finished study" if file in ON_THE_FINISHED_STUDY else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySharedWork:
    return BySharedWork(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=25, help="how often tests/workflow/test_killed_study.py kills")
