"""Paths of the files of a study, relative to the folder in which the workflow runs."""

from dataclasses import dataclass

from batchscape.config.settings import BATCH_WARMUP
from batchscape.config.study import StudyConfig
from batchscape.study.plan import Plan
from batchscape.study.registry import ANALYSES


@dataclass(frozen=True)
class Paths:
    """The only place that names files."""

    config: StudyConfig
    plan: Plan

    @property
    def folder(self) -> str:
        return f"results/{self.config.name}"

    @property
    def prepared_data(self) -> str:
        return f"{self.folder}/data/prepared.safetensors"

    @property
    def manifest(self) -> str:
        return f"{self.folder}/data/manifest.csv"

    @property
    def network(self) -> str:
        """The result of the check that the network fits the data."""
        return f"{self.folder}/network.json"

    def tuning_file(self, batch_size: int | str, file: str) -> str:
        return f"{self.folder}/tuning/bs{batch_size}/{file}"

    def tuned_rate(self, run: str) -> list[str]:
        """The file with the learning rate of a run; none if the study file gives the rate."""
        spec = self.config.runs[run]
        return [self.tuning_file(spec.batch_size, "tuned.json")] if spec.learning_rate is None else []

    @property
    def tuned_files(self) -> dict[int, str]:
        """The files with what the searches have found, by batch size; none if there is no search."""
        sizes = sorted(self.config.grid.batch_sizes) if self.config.tuning.enabled else []
        return {size: self.tuning_file(size, "tuned.json") for size in sizes}

    def batch_stages_file(self, setting: str) -> str:
        return f"{self.folder}/branches/{setting}/stages.json"

    def batch_stages(self, run: str) -> list[str]:
        """The file with the measured stages of a run; none if the study file gives all of its stages."""
        spec = self.config.runs[run]
        return [self.batch_stages_file(spec.setting)] if spec.batch_warmup else []

    @property
    def batch_stages_files(self) -> dict[str, str]:
        """The files with the measured stages, by setting; none without a batch size warm-up."""
        settings = dict(self.plan.settings_by_arm).get("batch_warmup", [])
        return {setting: self.batch_stages_file(setting) for setting in settings}

    def branches(self, setting: str) -> list[str]:
        """The files with the branches that the measured stages of a setting follow from."""
        return [self.csv(part) for part in self.plan.branches(setting.removesuffix(BATCH_WARMUP))]

    @property
    def finalists(self) -> str:
        """The settings that are trained again, which are known once the runs have trained."""
        return f"{self.folder}/confirmation/finalists.json"

    def confirmation_file(self, run: str, file: str) -> str:
        return f"{self.folder}/confirmation/{run}/{file}"

    @property
    def confirmation_summaries(self) -> list[str]:
        """The file of each run of the confirmation that exists once the run is complete."""
        return [self.confirmation_file(run, "run.json") for run in self.config.confirmation_runs]

    @property
    def tracked_runs(self) -> str:
        """Where the trackers have the runs: exists once they have all of them."""
        return f"{self.folder}/tracking/runs.csv"

    def run_file(self, run: str, file: str) -> str:
        return f"{self.folder}/runs/{run}/{file}"

    @property
    def run_summaries(self) -> list[str]:
        """The file of each run that exists once the run is complete."""
        return [self.run_file(run, "run.json") for run in self.config.runs]

    @property
    def weights_folders(self) -> list[str]:
        """Names of the folders of a run with its weights, and with the second moments of Adam."""
        return ["weights", *(["second_moments"] if self.config.optimizer.name in ("Adam", "AdamW") else [])]

    def analyzed_run_summaries(self, analysis: str, setting: str) -> list[str]:
        """The same of the runs of a setting that an analysis reads."""
        return [self.run_file(run, "run.json") for run in self.plan.analyzed_runs(analysis, setting)]

    def csv(self, name: str) -> str:
        """The file of a table or analysis, such as `tables/fixed_lr` or `analysis/distance`."""
        return f"{self.folder}/{name}.csv"

    def rows(self, analysis: str) -> str:
        """The file with the rows of all jobs of an analysis."""
        return self.csv(ANALYSES[analysis].rows)

    def partial_outputs(self, analysis: str) -> list[str]:
        """The files that the jobs of an analysis write, before their rows are gathered."""
        return [self.csv(part) for part in self.plan.runs_by_part(analysis)]

    def partial_outputs_of(self, rows: str) -> list[str]:
        """The same by the name of the gathered rows, such as `tables/landscape`."""
        return next(self.partial_outputs(name) for name, analysis in ANALYSES.items() if analysis.rows == rows)

    def figure(self, name: str, kind: str) -> str:
        return f"{self.folder}/figures/{name}.{kind}"

    @property
    def report(self) -> str:
        return f"{self.folder}/report.html"

    @property
    def partial_report(self) -> str:
        """The page that `batchscape report` writes; no rule writes or reads it."""
        return f"{self.folder}/report-partial.html"

    @property
    def reported_tables(self) -> list[str]:
        """All tables that the report reads."""
        names = [ANALYSES[name].rows for name in self.plan.analyses] + [f"tables/{name}" for name in self.plan.tables]
        return [self.csv(name) for name in names if name.startswith("tables/")]

    @property
    def reported_analyses(self) -> list[str]:
        """The results run by run that the report reads."""
        return [self.csv(name) for name in self.plan.interactive_sources]

    @property
    def outputs(self) -> list[str]:
        """One or more files of every job of the study."""
        return [
            self.prepared_data,
            self.network,
            *self.run_summaries,
            *self.batch_stages_files.values(),
            *([self.finalists] if self.config.confirmation_runs else []),
            *self.confirmation_summaries,
            *([self.tracked_runs] if self.config.tracking else []),
            *(file for analysis in self.plan.analyses for file in self.partial_outputs(analysis)),
            *(self.rows(analysis) for analysis in self.plan.analyses),
            *(self.csv(f"tables/{table}") for table in self.plan.tables),
            *(self.figure(figure, kind) for figure in self.plan.figures for kind in self.config.figures.file_formats),
            self.report,
        ]

    def log(self, job: str) -> str:
        return f"{self.folder}/logs/{job}.log"

    def analysis_log(self, analysis: str, part: str) -> str:
        """The log of the job that writes a part of an analysis, or all of its rows."""
        if not ANALYSES[analysis].is_split:
            return self.log(analysis)
        rule = "tune" if analysis == "tuning" else analysis
        return self.log(f"{rule}/{part.removeprefix('analysis/').partition('/')[2]}")

    def benchmark(self, job: str) -> str:
        return f"{self.folder}/benchmarks/{job}.tsv"
