"""What trackers have of the runs of a study, read back by their own packages."""

from pathlib import Path

import pandas as pd
import pytest

from batchscape.io.run_directory import RunDirectory


def recorded(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """Return the points that a tracker has to show: step and value of each column that is measured at every step."""
    history = pd.read_csv(run.history_file)
    columns = [name for name in history if "/" not in name and name != "step" and not history[name].isna().any()]
    return {name: list(zip(history["step"].tolist(), history[name].tolist(), strict=True)) for name in columns}


def read_events(study: Path, run: str) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of all event files of a run, in the order of writing, without any purging."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    points: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((study / "tracking" / "tensorboard" / _folder(run)).glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if not value.tag.startswith("_hparams_"):
                    number = float(tensor_util.make_ndarray(value.tensor))
                    points.setdefault(value.tag, []).append((event.step, number))
    return points


def read_mlflow(study: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the points of the active runs of the study, by name of the run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{study.absolute()}/tracking/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(study.name)
    return {
        run.info.run_name: {
            name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for run in client.search_runs([experiment.experiment_id])
    }


def read_csv(study: Path, run: str) -> pd.DataFrame:
    """Return the table of the tracker `csv` for a run."""
    return pd.read_csv(study / "tracking" / "csv" / _folder(run) / "metrics.csv")


def assert_same_points(found: dict[str, list[tuple[int, float]]], run: RunDirectory, digits: float = 1e-12) -> None:
    """Assert that a tracker has the points of a run's history, each once and in order."""
    expected = recorded(run)
    assert len(expected["validation_loss"]) > 1
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=digits), name


def _folder(run: str) -> str:
    setting, _, seed = run.rpartition("-seed")
    return f"{setting}/seed{seed}"
