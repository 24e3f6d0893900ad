"""The rules that train: one for the runs that train alone, and one for each group of seeds that share a process.

Snakemake has to know all files that the jobs of a rule write. The seeds of a group are the same for all settings, so a
rule can name the files of each of its seeds. The jobs of all these rules have the same params and inputs, so a run that
is complete stays up to date whichever rule it falls to.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

# Matches no name.
NOTHING = "(?!)"


@dataclass(frozen=True)
class TrainingRule:
    """A rule whose jobs train one or more runs of a setting, one after the other."""

    name: str
    """Such as `train`, or `train_3_from_seed0`."""

    runs: tuple[str, ...]
    """Names of the runs of a job, with the wildcard `{run}`, or else `{setting}`."""

    constraints: Mapping[str, str]
    """What the wildcards match."""

    @property
    def label(self) -> str:
        """A name for a job, with its wildcards, such as `{run}` or `{setting}-seed0to2`."""
        first, last = self.runs[0], self.runs[-1]
        return first if first == last else f"{first}to{last.rpartition('-seed')[2]}"

    @property
    def message(self) -> str:
        """The names of the runs of a job, for the message of the rule."""
        return ", ".join(self.runs).replace("{", "{wildcards.")

    def runs_of(self, wildcards: Mapping[str, str]) -> list[str]:
        """Return the names of the runs of the job with these wildcards."""
        return [run.format(**wildcards) for run in self.runs]


def group_seeds(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return the seeds in their order in groups of `size`, of which the last one may be smaller."""
    return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]


def training_rules(
    name: str, setting: str, seeds: Sequence[int], seeds_per_job: int, complete: Collection[str] | None = None
) -> list[TrainingRule]:
    """Return the rule for runs that train alone, and one for each group of seeds.

    If some runs of a setting in a group are complete and others are not, such as after a seed was added, each of them
    is left to the first rule: those that are complete are then not touched.

    Args:
        name: Name of the first rule, with which those of the others begin.
        setting: What the names of all settings match, as a regular expression.
        seeds: All seeds, in the order of the study file.
        seeds_per_job: How many of them share a process.
        complete: Names of the runs that are complete; None in the process of a job, which knows its rule.
    """
    groups = [group for group in group_seeds(seeds, seeds_per_job) if len(group) > 1]
    grouped = {seed: group for group in groups for seed in group}
    counts: dict[tuple[int, ...], dict[str, int]] = {group: defaultdict(int) for group in groups}
    for run in complete or () if groups else ():
        of_setting, _, seed = run.rpartition("-seed")
        if seed.isdecimal() and (group := grouped.get(int(seed))):  # there may be other folders, such as copies
            counts[group][of_setting] += 1
    divided = {
        group: [of_setting for of_setting, count in counts[group].items() if count < len(group)] for group in groups
    }
    alone = [f"{setting}-seed{seed}" for seed in seeds if seed not in grouped]
    alone += [f"{each}-seed{seed}" for group in groups for each in divided[group] for seed in group]
    anything = complete is None or not groups
    return [
        TrainingRule(name, ("{run}",), {"run": rf"{setting}-seed\d+" if anything else "|".join(alone) or NOTHING}),
        *(
            TrainingRule(
                f"{name}_{len(group)}_from_seed{group[0]}",
                tuple(f"{{setting}}-seed{seed}" for seed in group),
                {"setting": f"(?!(?:{'|'.join(divided[group]) or NOTHING})-seed){setting}"},
            )
            for group in groups
        ),
    ]
