"""`batchscape export`: the recommended setting of a finished study as Python for other programs."""

import json
from pathlib import Path

from batchscape.cli.finished import FINISH, find_folder, read_finished
from batchscape.config.loading import printable
from batchscape.config.run import RunSpec
from batchscape.errors import UserError
from batchscape.report.comparison.studies import TABLES
from batchscape.report.export import Format, export_setting
from batchscape.report.numbers import format_number
from batchscape.report.summary import describe_setting, find_recommended


def export(path: Path, kind: Format, devices: int, max_per_device: int | None) -> str:
    """Return the recommended setting of a study as Python.

    Args:
        path: A study file, or the folder of its results.
        kind: What the Python is for.
        devices: Number of devices.
        max_per_device: The largest batch size of a device; None if there is no limit.

    Raises:
        UserError: The study is not finished, it recommends nothing, or the devices cannot share the batch equally.
    """
    folder, notes = find_folder(path)
    finished = read_finished(folder)
    recommendation = finished.table("recommendation", TABLES["recommendation"])
    confirmation = None
    if finished.has_table("confirmation"):
        confirmation = finished.table("confirmation", TABLES["confirmation"])
    candidates = recommendation[recommendation["choice"] != "diverged"]
    if candidates.empty:
        raise UserError(f"{printable(folder)}: every setting has a diverged run, so none is recommended")
    chosen, _ = find_recommended(candidates, confirmation)
    run = finished.run(str(chosen["setting"]))
    spec = RunSpec.model_validate_json(json.dumps(run["spec"]))
    epochs = f"best weights after {format_number(chosen['best_epoch_mean'])} epochs, the mean over seeds"
    title = f"The recommended setting of the study {finished.study.name}: {describe_setting(chosen)}; {epochs}"
    network = folder / "network.json"
    try:
        tested = json.loads(network.read_text(encoding="utf-8"))
        has_batch_norm, is_weighted = bool(tested["batch_norm"]), bool(tested["weighted"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{printable(network)}: cannot be read ({error}); delete it and {FINISH}")
    text = export_setting(
        spec,
        run["training_examples"],
        title,
        kind,
        devices=devices,
        max_per_device=max_per_device,
        has_batch_norm=has_batch_norm,
        is_weighted=is_weighted,
    )
    return "".join([*(f"# {note}\n" for note in notes), text])
