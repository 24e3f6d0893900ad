"""The workflow as a module of another one, as snakedeploy and the catalogue of workflows write it."""

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
training: {max_epochs: 9}
comparison: {fixed_learning_rate: 0.5, high_learning_rate: 0.5}
tuning: {enabled: false}
"""


def outer(
    snakefile: str = LOCAL, config: str = "config", more: str = "", use: str = "use rule * from batchscape"
) -> str:
    """A Snakefile that uses the workflow as snakedeploy writes it."""
    return (
        'configfile: "outer/study.yaml"\n\n'
        f"module batchscape:\n    snakefile:\n        {snakefile}\n    config:\n        {config}\n{more}\n{use}\n"
    )


def planned(folder: Path, snakefile: str, *arguments: str, study: str = STUDY) -> tuple[int, str]:
    """Plan what an outer workflow in a folder makes of a study."""
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
    "by the Snakefile at the top": {"snakefile": '"../Snakefile"'},
    "renamed": {"use": "use rule * from batchscape as its_*"},
    "changed": {
        "use": "use rule * from batchscape\nuse rule train from batchscape as train with:\n    threads: 4\n"
        "use rule sharpness from batchscape as sharpness with:\n    priority: 3"
    },
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_study_is_the_same_as_by_configfile_so_that_nothing_of_it_is_stale(finished: Checkout, use: dict[str, str]):
    status, output = planned(finished.path, outer(**use), study=SMOKE)
    assert status == 0, output[-3000:]
    assert "Nothing to be done" in output, output[-3000:]


def test_only_the_study_that_is_given_is_planned(checkout: Checkout):
    status, output = planned(checkout.path, outer())
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}
    assert "results/digits" not in output
    assert "\nAll of outer\n" in re.sub(r"Job \d+: ", "", output)


def test_paths_can_be_put_below_a_prefix(checkout: Checkout):
    status, output = planned(checkout.path, outer(more='    prefix: "below"'), "--printshellcmds", "--quiet", "host")
    assert status == 0, output[-3000:]
    assert "below/results/outer/report.html" in output
    assert not re.search(r"(?<!below/)results/outer/(data|runs|tables)", output)
    unknown = "below/results/outer/runs/bs7-lr0.5-seed3/run.json"
    status, output = planned(checkout.path, outer(more='    prefix: "below"'), unknown)
    assert (status, "Traceback" in output) == (1, False)
    assert f"{unknown}: the study outer has no runs bs7-lr0.5-seed3; " in output


def test_keys_of_the_command_line_are_read_as_in_a_study_file(checkout: Checkout):
    arms = "arms={mine: {learning_rates: {32: 0.25}}}"
    status, output = planned(checkout.path, outer(), "--config", "name=007", arms, "training={max_epochs: 8}")
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3", "Training bs32-lr0.25-seed3"}
    assert "All of 007" in output


@pytest.mark.parametrize(
    ("section", "beginning", "assigned"),
    [
        ('config["study"]', "study:\n", "study={grid: {seeds: [5]}, name: 008}"),
        ('config["ours"]["study"]', "ours:\n study:\n", "ours={study: {grid: {seeds: [5]}, name: 008}}"),
    ],
)
def test_a_section_of_the_outer_config_can_be_the_study(
    checkout: Checkout, section: str, beginning: str, assigned: str
):
    nested = f"other: 1\n{beginning}" + "".join(f"  {line}\n" for line in STUDY.splitlines())
    status, output = planned(checkout.path, outer(config=section), "--config", assigned, study=nested)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed5"}
    assert "All of 008" in output


@pytest.mark.parametrize(
    ("snakefile", "study", "said"),
    [
        (
            outer(),
            STUDY.replace("seeds", "sedes"),
            "outer/study.yaml: grid.sedes: is not a known key; did you mean `se",
        ),
        (
            outer(config='"outer/study.yaml"'),
            STUDY,
            "module batchscape: has no study; add `config: config` to it, and",
        ),
        (outer(config="{}"), STUDY, "module batchscape: has no study; add `config: config` to it, and `configfile: "),
    ],
)
def test_a_wrong_study_is_one_line(checkout: Checkout, snakefile: str, study: str, said: str):
    status, output = planned(checkout.path, snakefile, study=study)
    lines = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_files_of_other_rules_of_the_outer_workflow_can_be_asked_for(checkout: Checkout):
    own = '\nrule own:\n    output:\n        "results/own.txt"\n    shell:\n        "touch {output}"\n'
    status, output = planned(checkout.path, outer() + own, "results/own.txt")
    assert status == 0, output[-3000:]
    assert re.search(r"^own +1$", output, re.MULTILINE)


def test_rules_that_are_included_take_the_study_that_is_declared_above(checkout: Checkout):
    snakefile = 'configfile: "outer/study.yaml"\ninclude: "../Snakefile"\n'
    status, output = planned(checkout.path, snakefile, "all")
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}


def test_the_snakefile_for_catalogues_has_the_same_default_target(checkout: Checkout):
    (checkout.path / "study.yaml").write_text(STUDY)
    arguments = ["--cores", "1", "--snakefile", "workflow/Snakefile", "--configfile", "study.yaml"]
    status, output = dry_run(checkout.path, arguments)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3"}


def test_two_studies_can_stand_beside_each_other(checkout: Checkout):
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
    status, output = planned(checkout.path, outer() + more)
    assert status == 0, output[-3000:]
    assert trainings(output) == {"Training bs32-lr0.5-seed3", "Training bs32-lr0.5-seed4"}


def test_forced_jobs_say_what_they_need_to_compute_again(checkout: Checkout):
    _, output = planned(checkout.path, outer(), "-F")
    assert "only if the outer Snakefile has the handler `onstart: batchscape.onstart()`" in output
    _, output = planned(checkout.path, outer())
    assert "onstart" not in output


# From afar.

BARE = """\
import sys
sys.path.append({site!r})
sys.argv = ["snakemake", *sys.argv[1:]]
from snakemake.cli import main
main()
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which GitHub's `owner/batchscape` is a repository on this disk."""
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
    (folder / "outer" / "Snakefile").write_text(outer(remote))
    arguments = ["--dry-run", "--cores", "1", "--snakefile", "outer/Snakefile"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def test_a_remote_workflow_plans_with_the_installed_package(tmp_path: Path, hosted: dict[str, str]):
    done = run_hosted(tmp_path, hosted, ["-m", "snakemake"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert trainings(done.stdout) == {"Training bs32-lr0.5-seed3"}


def test_where_the_package_is_not_installed_one_line_says_what_to_install(tmp_path: Path, hosted: dict[str, str]):
    # Without `site`, what is installed as editable is not found.
    code = BARE.format(site=sysconfig.get_path("purelib"))
    done = run_hosted(tmp_path, hosted, ["-S", "-c", code])
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(
        "install this workflow's package there: pip install git+https://github.com/owner/batchscape@v1"
    )
