"""The workflow as a module of another one, as snakedeploy and the catalog of workflows write it."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.helpers.checkout import JOB_LINE, PROJECT, Checkout
from tests.helpers.dry_run import dry_run

pytestmark = pytest.mark.slow

LOCAL = '"../workflow/Snakefile"'
STUDY = """\
name: outer
grid: {batch_sizes: [32], learning_rates: [0.5], seeds: [3]}
training: {budget: {epochs: 9}}
comparison: {fixed_learning_rate: 0.5, high_learning_rate: 0.5}
tuning: {enabled: false}
confirmation: {enabled: false}
"""


def outer_snakefile(
    snakefile: str = LOCAL, config: str = "config", more: str = "", use: str = "use rule * from batchscape"
) -> str:
    """Return a Snakefile that uses the workflow in the way that snakedeploy does."""
    return (
        'configfile: "outer/study.yaml"\n\n'
        f"module batchscape:\n    snakefile:\n        {snakefile}\n    config:\n        {config}\n{more}\n{use}\n"
    )


def plan(folder: Path, snakefile: str, *arguments: str, study: str = STUDY) -> tuple[int, str]:
    """Dry-run an outer workflow with a study in a folder."""
    (folder / "outer").mkdir(exist_ok=True)
    (folder / "outer" / "Snakefile").write_text(snakefile)
    (folder / "outer" / "study.yaml").write_text(study)
    return dry_run(folder, ["--cores", "8", "--snakefile", "outer/Snakefile", *arguments])


def trainings(output: str) -> set[str]:
    return {match["message"] for match in JOB_LINE.finditer(output) if (match["message"] or "").startswith("Training ")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout.at(tmp_path_factory.mktemp("module") / "checkout")


SMOKE = (PROJECT / "config" / "smoke.yaml").read_text()
USES = {
    "plain": {},
    "top-level Snakefile": {"snakefile": '"../Snakefile"'},
    "renamed": {"use": "use rule * from batchscape as its_*"},
    "changed": {
        "use": "use rule * from batchscape\nuse rule train from batchscape as train with:\n    threads: 4\n"
        "use rule sharpness from batchscape as sharpness with:\n    priority: 3"
    },
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_module_makes_nothing_of_a_finished_study_stale(finished: Checkout, use: dict[str, str]):
    status, output = plan(finished.path, outer_snakefile(**use), study=SMOKE)
    assert status == 0, output[-3000:]
    assert "Nothing to be done" in output, output[-3000:]


def test_an_override_of_a_renamed_rule_reaches_its_jobs(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    use = (
        "use rule * from batchscape as batchscape_*\n"
        "use rule train from batchscape as batchscape_train with:\n    threads: 2\n    priority: 5"
    )
    study = f"{STUDY}data: {{validation_fraction: 0.8}}\nmodel: {{channels: [4], dense: [8]}}\n".replace(
        "epochs: 9", "epochs: 1"
    )
    run_file = "results/outer/runs/bs32-lr0.5-seed3/run.json"
    plan(checkout.path, outer_snakefile(use=use), study=study)
    done = checkout.snakemake("--cores", "2", "--snakefile", "outer/Snakefile", run_file)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "batchscape_train" in done.stdout
    assert json.loads((checkout.path / run_file).read_text())["environment"]["threads"] == 2
    for again in (use, "use rule * from batchscape"):
        _, output = plan(checkout.path, outer_snakefile(use=again), run_file, study=study)
        assert "Nothing to be done" in output, output[-3000:]


def test_only_the_study_that_is_given_is_plan(checkout: Checkout):
    status, output = plan(checkout.path, outer_snakefile())
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}
    assert "results/digits" not in output
    assert "\nAll of outer\n" in re.sub(r"Job \d+: ", "", output)


def test_prefix_applies_to_all_paths(checkout: Checkout):
    snakefile = outer_snakefile(more='    prefix: "below"')
    status, output = plan(checkout.path, snakefile, "--printshellcmds", "--quiet", "host")
    assert status == 0, output[-3000:]
    assert "below/results/outer/report.html" in output
    assert not re.search(r"(?<!below/)results/outer/(data|runs|tables)", output)
    unknown = "below/results/outer/runs/bs7-lr0.5-seed3/run.json"
    status, output = plan(checkout.path, snakefile, unknown)
    assert (status, "Traceback" in output) == (1, False)
    assert f"{unknown}: the study outer has no runs bs7-lr0.5-seed3; " in output


def test_config_option_is_parsed_like_a_study_file(checkout: Checkout):
    arms = "arms={mine: {learning_rates: {32: 0.25}}}"
    status, output = plan(
        checkout.path, outer_snakefile(), "--config", "name=007", arms, "training={budget: {epochs: 8}}"
    )
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3", "Training bs32-lr0.25-seed3"}
    assert "All of 007" in output


@pytest.mark.parametrize(
    ("section", "parents", "assignment"),
    [
        ('config["study"]', "study:\n", "study={grid: {seeds: [5]}, name: 008}"),
        ('config["ours"]["study"]', "ours:\n study:\n", "ours={study: {grid: {seeds: [5]}, name: 008}}"),
    ],
)
def test_study_can_be_a_section_of_the_outer_config(checkout: Checkout, section: str, parents: str, assignment: str):
    nested = f"other: 1\n{parents}" + "".join(f"  {line}\n" for line in STUDY.splitlines())
    status, output = plan(checkout.path, outer_snakefile(config=section), "--config", assignment, study=nested)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed5"}
    assert "All of 008" in output


@pytest.mark.parametrize(
    ("snakefile", "study", "expected"),
    [
        (
            outer_snakefile(),
            STUDY.replace("seeds", "sedes"),
            "outer/study.yaml: grid.sedes: is not a known key; did you mean `se",
        ),
        (
            outer_snakefile(config='"outer/study.yaml"'),
            STUDY,
            "module batchscape: has no study; add `config: config` to it, and",
        ),
        (
            outer_snakefile(config="{}"),
            STUDY,
            "module batchscape: has no study; add `config: config` to it, and `configf",
        ),
    ],
)
def test_invalid_study_is_rejected_in_one_line(checkout: Checkout, snakefile: str, study: str, expected: str):
    status, output = plan(checkout.path, snakefile, study=study)
    lines = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_rules_of_the_outer_workflow_can_write_to_results(checkout: Checkout):
    rule = '\nrule other:\n    output:\n        "results/other.txt"\n    shell:\n        "touch {output}"\n'
    status, output = plan(checkout.path, outer_snakefile() + rule, "results/other.txt")
    assert status == 0, output[-3000:]
    assert re.search(r"^other +1$", output, re.MULTILINE)


def test_included_rules_use_the_configfile_of_the_including_snakefile(checkout: Checkout):
    snakefile = 'configfile: "outer/study.yaml"\ninclude: "../Snakefile"\n'
    status, output = plan(checkout.path, snakefile, "all")
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}


def test_snakefile_for_catalogs_has_the_same_default_target(checkout: Checkout):
    (checkout.path / "study.yaml").write_text(STUDY)
    arguments = ["--cores", "1", "--snakefile", "workflow/Snakefile", "--configfile", "study.yaml"]
    status, output = dry_run(checkout.path, arguments)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}


def test_two_studies_can_be_modules_of_one_workflow(checkout: Checkout):
    second = STUDY.replace("name: outer", "name: second").replace("[3]", "[4]")
    (checkout.path / "second.yaml").write_text(second)
    more = (
        "\nimport yaml\n\nmodule second:\n"
        '    snakefile:\n        "../workflow/Snakefile"\n'
        '    config:\n        yaml.safe_load(open("second.yaml"))\n\n'
        "use rule * from second as second_*\n\n"
        "rule both:\n    default_target: True\n    input:\n"
        '        "results/outer/report.html",\n        "results/second/report.html",\n'
    )
    status, output = plan(checkout.path, outer_snakefile() + more)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3", "Training bs32-lr0.5-seed4"}


def test_forced_jobs_of_a_module_print_the_handler_that_they_need(checkout: Checkout):
    _, output = plan(checkout.path, outer_snakefile(), "-F")
    assert "only if the outer Snakefile has the handler `onstart: batchscape.onstart()`" in output
    _, output = plan(checkout.path, outer_snakefile())
    assert "onstart" not in output


HANDLERS = "".join(f"\n{name}:\n    batchscape.{name}()\n" for name in ("onstart", "onsuccess", "onerror"))


def test_handlers_of_a_module_with_a_prefix_find_its_folder(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    rule = '\nrule other:\n    default_target: True\n    output: "other.txt"\n    shell: "touch {output}"\n'
    study = f"{STUDY}data: {{source: 'my_data:load'}}\n"
    (checkout.path / "my_data.py").write_text("def load():\n    raise ValueError('no data')\n")
    plan(checkout.path, outer_snakefile(more='    prefix: "below"') + rule + HANDLERS, study=study)
    folder = checkout.path / "below" / "results" / "outer"
    options = ("--cores", "1", "--snakefile", "outer/Snakefile")
    failed = checkout.snakemake("below/results/outer/data/prepared.safetensors", *options)
    assert failed.returncode == 1
    message = "below/results/outer/logs/prepare.log: data: my_data:load fails: ValueError: no data"
    assert f"Failed jobs:\n{message}" in failed.stdout, failed.stdout[-3000:]
    (folder / "report.html").touch()
    assert "\nReport: below/results/outer/report.html\n" in checkout.snakemake(*options).stdout


# Remote workflows.

WITHOUT_PACKAGE = """\
import sys
sys.path.append({site!r})
sys.argv = ["snakemake", *sys.argv[1:]]
from snakemake.cli import main
main()
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return environment variables that replace GitHub's `owner/batchscape` by a local repository."""
    folder = tmp_path_factory.mktemp("hosted")
    repository = Checkout.at(folder / "repository").path
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--message", "x"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", *command], cwd=repository, check=True)
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/owner/batchscape",
    }


def run_hosted(folder: Path, environment: dict[str, str], command: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "outer").mkdir()
    (folder / "outer" / "study.yaml").write_text(STUDY)
    remote = 'github("owner/batchscape", path="workflow/Snakefile", tag="v1")'
    (folder / "outer" / "Snakefile").write_text(outer_snakefile(remote))
    arguments = ["--dry-run", "--cores", "1", "--snakefile", "outer/Snakefile"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def test_remote_workflow_uses_the_installed_package(tmp_path: Path, hosted: dict[str, str]):
    done = run_hosted(tmp_path, hosted, ["-m", "snakemake"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert trainings(done.stdout) == {"Training bs32-lr0.5-seed3"}


def test_snakedeploy_writes_a_workflow_that_plans_the_study(tmp_path: Path, hosted: dict[str, str]):
    def run(*command: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=tmp_path, env=hosted, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    run("snakedeploy", "deploy-workflow", "https://github.com/owner/batchscape", ".", "--tag", "v1")
    (tmp_path / "config" / "config.yaml").write_text(STUDY)
    output = run("snakemake", "--dry-run", "--cores", "1")
    assert "workflow specific profile profiles/default" in output
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}


def test_missing_package_is_reported_with_what_to_install(tmp_path: Path, hosted: dict[str, str]):
    # Without `site`, the editable installation is not found.
    code = WITHOUT_PACKAGE.format(site=sysconfig.get_path("purelib"))
    done = run_hosted(tmp_path, hosted, ["-S", "-c", code])
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(
        "install this workflow's package there: pip install git+https://github.com/owner/batchscape@v1"
    )
