"""The Optuna journal of a search: locks that killed jobs leave, and file systems without links."""

import errno
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import optuna
import pytest

from batchscape.tuning.journal import open_journal
from tests.helpers.waiting import TIMEOUT, wait_for


@pytest.mark.parametrize("lock", ["a link to a journal that was moved", "a file"])
def test_lock_of_a_killed_search_is_released(tmp_path: Path, lock: str):
    journal = tmp_path / "optuna.journal"
    study = optuna.create_study(storage=open_journal(journal), study_name="one")
    study.add_trial(optuna.create_trial(value=1.0))
    lock_file = tmp_path / "optuna.journal.lock"
    if lock == "a file":
        lock_file.touch()
    else:  # as Optuna's default lock leaves it
        lock_file.symlink_to(tmp_path / "elsewhere" / "optuna.journal")
    code = (
        "import optuna, sys; from pathlib import Path; from batchscape.tuning.journal import open_journal;"
        "study = optuna.load_study(storage=open_journal(Path(sys.argv[1])), study_name='one');"
        "study.add_trial(optuna.create_trial(value=2.0))"
    )
    # In a separate process: one that waits for such a link never ends.
    subprocess.run([sys.executable, "-c", code, str(journal)], check=True, timeout=TIMEOUT)
    again = optuna.load_study(storage=open_journal(journal), study_name="one")
    assert [trial.value for trial in again.trials] == [1.0, 2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.journal"]


def test_journal_needs_no_symbolic_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def raise_permission_error(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.symlink", raise_permission_error)
    study = optuna.create_study(storage=open_journal(tmp_path / "optuna.journal"))
    study.add_trial(optuna.create_trial(value=1.0))
    assert study.best_value == 1.0


def test_dashboard_lists_the_studies_and_trials_of_a_journal(tmp_path: Path):
    pytest.importorskip("optuna_dashboard")
    journal = tmp_path / "optuna.journal"
    study = optuna.create_study(storage=open_journal(journal), study_name="bs64-0123456789ab")
    distributions = {"learning_rate": optuna.distributions.FloatDistribution(0.01, 1, log=True)}
    for rate in (0.02, 0.5):
        study.add_trial(optuna.create_trial(value=rate, params={"learning_rate": rate}, distributions=distributions))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(journal), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dashboard:
        try:
            url = f"http://127.0.0.1:{port}/api/studies"
            wait_for(lambda: dashboard.poll() is not None or answers(url))
            (found,) = read_url(url)["study_summaries"]
            assert found["study_name"] == "bs64-0123456789ab"
            trials = read_url(f"{url}/{found['study_id']}")["trials"]
            assert [trial["values"] for trial in trials] == [[0.02], [0.5]]
        finally:
            dashboard.kill()
    # Reading it leaves no lock and no link, so the search can resume.
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.journal"]


def read_url(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    try:
        read_url(url)
    except OSError:
        return False
    return True
