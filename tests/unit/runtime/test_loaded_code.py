"""A job fails if it imports code that was edited since Snakemake hashed it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import sys
from batchscape.runtime.job import job_log
with job_log("job.log"):
    from batchscape.runtime.user_code import import_object
    for path in sys.argv[1:]:
        import_object(path, "model.name")
    print("done")
"""
TWO_RUNS = """
from batchscape.runtime.job import run_in_turn
from contextlib import nullcontext
from batchscape.runtime.user_code import import_object
run_in_turn(["job.log", "other.log"], nullcontext, lambda _: import_object("my_net:Net", "model.name"))
"""
MESSAGE = "{}: was edited while Snakemake runs; put it back, or run the same command again, which also repeats what"


def run_job(folder: Path, record: dict[Path, str] | None, *imported: str) -> tuple[int, str, str]:
    """Return the exit status of a job that imports code of the user, its standard error and its log."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    if record is not None:
        (folder / "record.json").write_text(json.dumps({str(file): digest for file, digest in record.items()}))
        environment["BATCHSCAPE_CODE"] = str(folder / "record.json")
    command = [sys.executable, "-c", JOB, *imported]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, (folder / "job.log").read_text()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, Path]:
    """Two modules, of which the first imports the second one."""
    texts = {"my_net": "from my_layers import Layer\nNet = Layer\n", "my_layers": "class Layer:\n    pass\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    return {name: tmp_path / f"{name}.py" for name in texts}


@pytest.mark.parametrize("edited", ["my_net", "my_layers"])
def test_a_job_that_imports_an_edited_module_fails_with_one_line(tmp_path: Path, modules: dict[str, Path], edited: str):
    record = {file: digest(file) for file in modules.values()}
    assert run_job(tmp_path, record, "my_net:Net")[:2] == (0, "")
    before = modules[edited].read_text()
    modules[edited].write_text(f"{before}other = 1\n")
    status, errors, log = run_job(tmp_path, record, "my_net:Net")
    assert status == 1
    (line,) = errors.splitlines()
    assert line.startswith(MESSAGE.format(f"{edited}.py"))
    assert log.startswith(line)
    modules[edited].write_text(before)
    assert run_job(tmp_path, record, "my_net:Net")[0] == 0


def test_each_run_of_a_job_fails(tmp_path: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.JOB", TWO_RUNS)
    status, errors, _ = run_job(tmp_path, {modules["my_net"]: "of another content"})
    assert (status, errors.count(MESSAGE.format("my_net.py"))) == (1, 2)


def test_only_modules_that_are_imported_and_hashed_count(tmp_path: Path, modules: dict[str, Path]):
    record = {modules["my_net"]: "of another content"}
    assert run_job(tmp_path, record, "my_layers:Layer")[0] == 0
    assert run_job(tmp_path, None, "my_net:Net")[0] == 0
    assert run_job(tmp_path, record, "my_net:Net")[0] == 1


def test_a_link_to_the_folder_is_followed(tmp_path: Path, modules: dict[str, Path]):
    (tmp_path / "link").symlink_to(tmp_path)
    assert run_job(tmp_path / "link", {modules["my_net"]: "of another content"}, "my_net:Net")[0] == 1


def test_an_edited_module_of_the_library_fails_before_the_job_does_anything(tmp_path: Path):
    import batchscape.runtime.lock

    lock = Path(batchscape.runtime.lock.__file__).resolve()
    status, errors, log = run_job(tmp_path, {lock: "of another content"})
    assert (status, "done" in log) == (1, False)
    assert errors.startswith(MESSAGE.format(lock))
