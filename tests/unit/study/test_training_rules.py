"""Which runs share a process."""

import re

import pytest

from batchscape.config.settings import SETTING_PATTERN
from batchscape.study.training_rules import TrainingRule, group_seeds, training_rules

SETTINGS = ("bs32-lr0.1", "bs32-lr0.01-x4at50pct", "bs256-lrtuned")
SEEDS = (5, 0, 3, 50, 1)
RUNS = [f"{setting}-seed{seed}" for setting in SETTINGS for seed in SEEDS]


def jobs(rules: list[TrainingRule]) -> dict[str, list[tuple[str, list[str]]]]:
    """Return the jobs that Snakemake could start for each run: the name of the rule, and all runs of the job."""
    found: dict[str, list[tuple[str, list[str]]]] = {run: [] for run in RUNS}
    for rule in rules:
        for pattern in rule.runs:
            name = re.escape(pattern).replace(r"\{", "{").replace(r"\}", "}")
            for wildcard, constraint in rule.constraints.items():
                name = name.replace(f"{{{wildcard}}}", f"(?P<{wildcard}>{constraint})")
            for run in RUNS:
                if match := re.fullmatch(name, run):
                    found[run].append((rule.name, rule.runs_of(match.groupdict())))
    return found


def rules(size: int, complete: list[str] | None = ()) -> list[TrainingRule]:
    return training_rules("train", SETTING_PATTERN, SEEDS, size, complete)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("complete", [[], RUNS, ["bs32-lr0.1-seed50"], ["bs32-lr0.1-seed0", "bs256-lrtuned-seed5"]])
def test_each_run_belongs_to_one_job_which_is_complete_or_not(size: int, complete: list[str]):
    for run, found in jobs(rules(size, complete)).items():
        ((_, together),) = found
        assert run in together
        assert len({name in complete for name in together}) == 1


def test_seeds_are_grouped_in_their_order():
    assert group_seeds(SEEDS, 2) == [(5, 0), (3, 50), (1,)]
    assert jobs(rules(2))["bs32-lr0.1-seed50"] == [("train_2_from_seed3", ["bs32-lr0.1-seed3", "bs32-lr0.1-seed50"])]
    assert jobs(rules(2))["bs32-lr0.1-seed1"] == [("train", ["bs32-lr0.1-seed1"])]
    assert [rule.label for rule in rules(2)] == ["{run}", "{setting}-seed5to0", "{setting}-seed3to50"]


def test_runs_of_a_group_of_which_some_are_complete_train_alone():
    found = jobs(rules(3, ["bs32-lr0.1-seed0"]))
    assert found["bs32-lr0.1-seed3"] == [("train", ["bs32-lr0.1-seed3"])]
    assert len(found["bs256-lrtuned-seed3"][0][1]) == 3


def test_a_copy_of_the_folder_of_a_run_does_not_matter():
    assert jobs(rules(3, [*RUNS, "bs32-lr0.1-seed0-backup", "notes"])) == jobs(rules(3, RUNS))


def test_a_job_finds_its_rule_whatever_is_complete_by_then():
    during = {(rule, *runs) for found in jobs(rules(3, None)).values() for rule, runs in found}
    for complete in ([], RUNS, ["bs32-lr0.1-seed0"]):
        planned = {(rule, *runs) for found in jobs(rules(3, complete)).values() for rule, runs in found}
        assert planned <= during
