"""Conventions of the project, checked by linters and by comparing files."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from batchscape.cli.reference import reference, schema
from batchscape.study.fingerprint import PACKAGE
from batchscape.study.registry import FIGURES, TABLES
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT, Checkout


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "workflow"],
        ["snakemake", "--lint"],
        ["lint-imports"],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_linters_pass(command: list[str]):
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent))
    assert tool, f"{command[0]} is not installed beside this Python"
    done = subprocess.run([tool, *command[1:]], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_study_accepts_a_file_with_a_space_in_its_name():
    command = ["make", "--dry-run", "--no-print-directory", "study", "CONFIG=config/my study.yaml"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    commands = [shlex.split(line) for line in done.stdout.splitlines()[-2:]]
    assert [command[-1] for command in commands] == ["config/my study.yaml"] * 2


def test_config_reference_and_schema_are_up_to_date():
    assert (PROJECT / "docs" / "config.md").read_text() == reference(), "run `make docs`"
    assert (PROJECT / "config" / "schema.json").read_text() == schema(), "run `make docs`"


def test_conda_environment_matches_the_package():
    conda = YAML(typ="safe").load(PROJECT / "envs" / "batchscape.yaml")["dependencies"]
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements = [f"python{package['requires-python']}", *package["dependencies"]]
    # Two packages have other names in conda, which also writes versions differently.
    names = {"torch": "pytorch", "snakemake": "snakemake-minimal"}
    pairs = [re.fullmatch(r"([a-z0-9_.-]+?)(>=[0-9.]+)", each.replace(" ", "")).groups() for each in requirements]
    assert {f"{names.get(name, name)} {version}" for name, version in pairs} == set(conda)


def test_the_catalog_of_workflows_accepts_the_repository():
    """What https://github.com/snakemake/snakemake-workflow-catalog reads, besides `--lint` and `snakefmt`."""
    assert {"snakemake", "workflow"} <= set(re.findall(r"\w+", (PROJECT / "README.md").read_text().lower()))
    assert (PROJECT / "workflow" / "Snakefile").is_file()
    assert {file.suffix for file in (PROJECT / "workflow" / "rules").iterdir()} == {".smk"}
    assert (PROJECT / "config" / "README.md").is_file()
    usage = YAML(typ="safe").load(PROJECT / ".snakemake-workflow-catalog.yml")["usage"]
    assert usage["report"] is True
    assert usage["software-stack-deployment"] == {"conda": True}
    assert usage["mandatory-flags"] == {"desc": None, "flags": None}


def test_ci_tests_every_supported_python():
    ci = YAML(typ="safe").load(PROJECT / ".github" / "workflows" / "ci.yml")
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    versions = [name.rpartition(" :: ")[2] for name in package["classifiers"] if " :: Python :: " in name]
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    assert package["requires-python"] == f">={versions[0]}"


def test_rule_files_import_no_slow_library():
    slow_import = re.compile(
        r"^\s*(?:import|from)\s+(torch|pytorch_lightning|lightning|optuna|pandas|plotnine)", re.MULTILINE
    )
    for file in [PROJECT / "Snakefile", *(PROJECT / "workflow" / "rules").glob("*.smk")]:
        assert not slow_import.search(file.read_text()), file
    code = "import sys; import batchscape.study.study, batchscape.study.fingerprint; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning", "pandas", "plotnine", "sklearn"} & set(loaded)


@pytest.mark.parametrize("page", ["usage.md", "data.md", "custom-code.md", "lightning.md", "cluster.md"])
def test_study_files_in_the_docs_are_valid(page: str):
    """The first one of usage.md is complete; each of the others is a part that is added to it."""
    blocks = {
        name: re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / name).read_text(), re.DOTALL)
        for name in ("usage.md", page)
    }
    reader = YAML(typ="safe", pure=True)
    complete = reader.load(blocks["usage.md"][0])
    for block in blocks[page]:
        # Alternatives are in consecutive lines.
        alternatives = block.splitlines() if block.count("\ndata:") else [block]
        for part in alternatives:
            Study.from_mapping({**complete, **reader.load(part)}, page)
    assert blocks[page]


# Words for which the field has better ones: complete, fix, again, reported, saved; is in, resumes.
IDIOMS = re.compile(r"\b(whole|mend(s|ed|ing)?|anew|told|kept|stands? in|go(es|ing)? on)\b", re.IGNORECASE)
PLAIN_ENGLISH = (
    *("src", "workflow", "docs", "profiles", "config", "envs", ".ci", ".github"),
    *("Snakefile", "Makefile", "README.md", "CONTRIBUTING.md"),
)


def test_code_and_docs_use_plain_english():
    suffixes = {".py", ".smk", ".md", ".yaml", ".yml", ".json", ".rst", ".jinja", ".css", ".js", ""}
    roots = [PROJECT / name for name in PLAIN_ENGLISH]
    files = [
        file
        for root in roots
        for file in ([root] if root.is_file() else sorted(root.rglob("*")))
        if file.is_file() and file.suffix in suffixes and ".egg-info" not in str(file)
    ]
    assert len(files) > 250
    counts = {str(file.relative_to(PROJECT)): len(IDIOMS.findall(file.read_text())) for file in files}
    assert {name: count for name, count in counts.items() if count} == {}


def test_package_root_has_no_loose_modules():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_unit_tests_mirror_the_package():
    tests = PROJECT / "tests" / "unit"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert {folder for folder in folders if not (PACKAGE / folder).is_dir()} == set()


def test_tables_figures_and_analyses_of_runs_do_not_import_torch():
    modules = ", ".join(
        [f"batchscape.report.tables.{name}" for name in TABLES]
        + [f"batchscape.report.figures.{name}" for name in FIGURES]
        + [f"batchscape.analysis.{name}" for name in ("collect", "runs", "distance", "epoch_distance", "update_norms")]
    )
    code = f"import sys; import {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning"} & set(loaded)


def test_training_skips_unused_imports_that_custom_networks_can_still_make():
    code = (
        "import sys; import batchscape.training.train; print(*sys.modules); "
        # As a network is imported: torchmetrics imports torchvision, whose operators a torch for CPUs may lack.
        "from batchscape.runtime.user_code import import_object; "
        "print(import_object('torchmetrics:MeanMetric', 'model.name')()(2.0))"
    )
    loaded, mean = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "pytorch_lightning" in loaded.split()
    assert not {"torchmetrics", "matplotlib", "scipy.signal"} & set(loaded.split())
    assert mean == "tensor(2.)"


@pytest.mark.slow
def test_outputs_docs_describe_every_column(finished: Checkout):
    text = (PROJECT / "docs" / "outputs.md").read_text()
    folder = finished.path / "results" / "smoke"
    files = [
        *folder.glob("tables/*.csv"),
        *folder.glob("analysis/*.csv"),
        folder / "runs/bs64-lr0.02-seed0/history.csv",
    ]
    for file in files:
        for column in file.read_text().partition("\n")[0].split(","):
            stem = re.sub(r"_(mean|sd|min|max)$", "", column).partition("/")[0]
            assert f"`{stem.replace('accuracy', '<metric>')}`" in text, f"{file.name}: {column}"


@pytest.mark.slow
def test_python_example_in_the_usage_docs_trains_a_run(tmp_path: Path):
    example = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "usage.md").read_text(), re.DOTALL)[1]
    example += "\nimport gc\nassert gc.isenabled()"  # only jobs may change Python's settings
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"run.json", "history.csv", "update_norms.npy"} <= {path.name for path in (tmp_path / "my-run").iterdir()}
