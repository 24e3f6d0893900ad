"""A study on a folder with everything in it that real folders have, from the files to the report."""

from pathlib import Path

import pandas as pd
import pytest

from batchscape.study import Study
from tests.bad_images import write_bad_images
from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.slow

STUDY = """\
name: pets
data:
  source: image_folder
  path: data/pets
  image_size: [16, 16]
grid: {batch_sizes: [8, 16], learning_rates: [0.05], seeds: [0]}
model: {name: vgg, channels: [4], dense: [8], normalization: batch, dropout: 0.2}
training: {max_epochs: 4, patience: 2, snapshots: [1], augment_flip: true, augment_shift: 1}
comparison: {fixed_lr: 0.05, high_lr: 0.05}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {enabled: false}
sharpness: {subspace_dimension: 5, iterations: 2, random_starts: 1, trace_products: 3}
interpolation: {enabled: false}
landscape: {points: [3, 3]}
gradient_alignment: {enabled: false}
device_timing: {enabled: false}
"""


def test_a_folder_of_images_becomes_a_report_and_nothing_is_dropped_in_silence(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    dropped = write_bad_images(checkout.path / "data" / "pets", 40)
    config = checkout.path / "config" / "pets.yaml"
    config.write_text(STUDY)
    study = Study.from_file(config)
    folder = checkout.path / study.folder

    output = checkout.run(config)

    manifest = pd.read_csv(checkout.path / study.manifest, keep_default_na=False)
    used = manifest[manifest["reason"] == ""]
    reasons = manifest[manifest["reason"] != ""].set_index("file")["reason"].str.partition(":")[0]
    assert reasons.to_dict() == dropped
    line = next(line for line in output.splitlines() if "files are used" in line)
    assert line.startswith(f"data: {len(used)} of {len(manifest)} files are used: ")
    assert set(dropped.values()) == {kind for kind in dropped.values() if kind in line}
    sides = used.groupby("split")["sha256"].agg(set)
    assert not sides["train"] & sides["validation"]

    for table in study.shown_tables:
        assert len(pd.read_csv(checkout.path / table)) > 0
    for figure in study.figures:
        assert (checkout.path / study.figure(figure, "png")).stat().st_size > 5_000
    page = (folder / "report.html").read_text()
    assert all(f'id="figure-{figure}"' in page for figure in study.figures)
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    assert set(runs["run"]) == set(study.runs)
    assert set(runs["status"]) <= {"converged", "max_epochs"}

    assert checkout.stale(config) == set()
    (checkout.path / "data" / "pets" / ".DS_Store").write_bytes(b"left by a file manager")
    assert checkout.stale(config) == set()
    first = used["file"].iloc[0]
    image = checkout.path / "data" / "pets" / first
    image.with_name(f"again-{image.name}").write_bytes(image.read_bytes())
    stale = checkout.stale(config)
    assert {"prepare", "network", "report", *(f"train {run}" for run in study.runs)} <= stale
