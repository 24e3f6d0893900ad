"""Inspection of tables, text and sets of images, and mistakes in them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from batchscape.config.data.images import IdxConfig
from batchscape.config.data.sources import DataConfig
from batchscape.config.data.tables import DiamondsConfig
from batchscape.config.data.text import PythonDocsConfig
from batchscape.data.inspect import inspect_source
from batchscape.data.prepare import prepare
from batchscape.data.spec import DataSpec
from tests.helpers.bad_tables import BAD_INPUTS, SEEN_BY_PREPARE_ONLY, BadInput, idx


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: f"{case.keys['source']}-{case.name}")
def test_a_mistake_is_one_line_that_names_the_file_or_the_key(tmp_path: Path, refusal: Callable, case: BadInput):
    config = TypeAdapter(DataConfig).validate_python(case.write(tmp_path))
    message = refusal(prepare, config, 1, case.task)
    start, *others = (part.replace("{}", str(tmp_path)) for part in case.expected)
    assert message.startswith(start)
    assert all(part in message for part in others)
    if case.name in SEEN_BY_PREPARE_ONLY:
        inspect_source(config, case.task)
    else:
        assert refusal(inspect_source, config, case.task) == message


def test_there_are_many_mistakes():
    assert len(BAD_INPUTS) >= 60
    names = [(case.keys["source"], case.name) for case in BAD_INPUTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("config", [DiamondsConfig(source="diamonds"), PythonDocsConfig(source="python_docs")])
def test_small_files_are_inspected_as_they_are_prepared(config: DataConfig):
    inspection = inspect_source(config)
    data = prepare(config, task=config.tasks[0]).data
    assert inspection.counts == (len(data.train), len(data.validation))
    assert inspection.spec is not None
    assert inspection.spec.shape == data.spec.shape
    assert inspection.spec.vocabulary == data.spec.vocabulary


def test_rows_without_a_target_are_counted(tmp_path: Path):
    rows = [f"{row},{'' if row % 10 == 0 else row % 3}" for row in range(1, 101)]
    (tmp_path / "rows.csv").write_text("a,kind\n" + "\n".join(rows))
    table = {"source": "table", "path": str(tmp_path / "rows.csv"), "target": "kind", "missing": "impute"}
    line, *_ = inspect_source(TypeAdapter(DataConfig).validate_python(table)).lines
    assert line == f"data: {tmp_path}/rows.csv: 90 rows of 3 classes: 0, 1, 2; dropped: 10 missing value"


@pytest.mark.parametrize("transform", ["none", "log", "standardize"])
def test_the_scale_of_a_target_is_reported_as_by_prepare(tmp_path: Path, transform: str):
    rng = np.random.default_rng(0)
    rows = [f"{x:.3f},{np.exp(11 + 0.2 * x):.0f},{1 + (x > 0)}" for x in rng.normal(size=200)]
    (tmp_path / "homes.csv").write_text("area,price,count\n" + "\n".join(rows))
    keys = {"target": "price", "target_transform": transform, "weight": "count", "validation_fraction": 0.3}
    table = {"source": "table", "path": str(tmp_path / "homes.csv"), **keys}
    config = TypeAdapter(DataConfig).validate_python(table)
    (line,) = (line for line in inspect_source(config, "regression").lines if line.startswith("data: targets: "))
    assert line.removeprefix("data: ") in prepare(config, task="regression").summary
    assert ("; networks train better on targets" in line) == (transform == "none")
    assert line.endswith(": write `target_transform: standardize` in the section `data`") == (transform == "none")


def test_of_large_files_only_the_headers_are_read(tmp_path: Path, refusal: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscape.data.inspect_files.MAX_BYTES", 100)
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "1,a\n2,b\n" * 100 + "oops\n")
    config = TypeAdapter(DataConfig).validate_python({"source": "table", "path": str(path), "target": "y"})
    inspection = inspect_source(config)
    assert inspection.lines == [f"data: {path}: 0 MB, of which only the headers are read here"]
    assert "line 202" in refusal(prepare, config)
    assert "no column `z`" in refusal(inspect_source, config.model_copy(update={"target": ("z",)}))


def test_images_are_inspected_without_reading_pixels(tmp_path: Path):
    images, labels = np.zeros((20, 6, 4), np.uint8), np.arange(20, dtype=np.uint8) % 5
    for side in ("train", "t10k"):
        (tmp_path / f"{side}-images-idx3-ubyte").write_bytes(idx(images)[:16])  # the header
        (tmp_path / f"{side}-labels-idx1-ubyte").write_bytes(idx(labels))
    inspection = inspect_source(IdxConfig(source="idx", path=str(tmp_path)))
    assert inspection.spec == DataSpec("images", (1, 6, 4), "class", tuple("01234"))
    assert inspection.counts == (16, 4)
