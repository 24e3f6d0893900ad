"""GPUs, Slurm options and priorities of a study's jobs."""

from dataclasses import dataclass

from batchscape.config.study import Run, StudyConfig


@dataclass(frozen=True)
class JobResources:
    """What the jobs of a study request, where the machine has it."""

    config: StudyConfig

    @property
    def analysis_gpus(self) -> int:
        """GPUs of an analysis."""
        return 0 if self.config.training.accelerator == "cpu" else 1

    @property
    def training_gpus(self) -> int:
        """GPUs of a training; 0 on several nodes, where `slurm_gres` requests them."""
        resources = self.config.resources
        return self.analysis_gpus * resources.devices if resources.nodes == 1 else 0

    @property
    def timing_devices(self) -> int:
        """The largest number of devices that is timed."""
        return max(self.config.device_timing.device_counts)

    @property
    def timing_gpus(self) -> int:
        return self.analysis_gpus * self.timing_devices

    @property
    def slurm_gres(self) -> str:
        """GPUs per node of a training on several nodes, for sbatch's `--gres`; else empty."""
        resources = self.config.resources
        has_gres = resources.nodes > 1 and self.config.training.accelerator == "gpu"
        return f"gpu:{resources.devices}" if has_gres else ""

    @property
    def slurm_tasks(self) -> int:
        """Slurm tasks of a training, one per node; 0 leaves the number to Slurm, which counts GPUs otherwise."""
        return 0 if self.config.training.accelerator == "gpu" else self.config.resources.nodes

    def search_priority(self, batch_size: int) -> float:
        """Return the priority of a search: from 1 to 2, above all trainings, increasing with the batch size."""
        # A batch that does not fit in memory then fails early, and trainings at the tuned rate wait for the search.
        batch_sizes = sorted(self.config.grid.batch_sizes)
        return 1 + batch_sizes.index(batch_size) / len(batch_sizes)

    @property
    def artifact_priority(self) -> int:
        """The priority of a table or figure: above that of any search, so that it is made once its sources exist."""
        # It takes one core, so it displaces one search or training at most, whose priority it has to exceed.
        return 3

    @property
    def confirmation_priority(self) -> int:
        """The priority of a run of the confirmation: above that of figures, which have time while it trains."""
        return self.artifact_priority + 1

    def run_priority(self, name: str) -> float:
        """Return the priority of a training: from 0 to 1 for the first run of each batch size, else 0."""
        run = self.config.runs[name]
        first = Run(run.batch_size, self.config.comparison.fixed_learning_rate, self.config.grid.seeds[0])
        # With priorities for all runs, those of the smallest batch size, which take longest, would start last.
        return self.search_priority(run.batch_size) - 1 if run == first else 0

    def describe_gpus(self, on_cluster: bool | None = None) -> str:
        """Return the number of GPUs that a training requests, in one line; `on_cluster` is None if unknown."""
        resources, accelerator = self.config.resources, self.config.training.accelerator
        per_training = f"{resources.devices} on each of {resources.nodes} nodes" if resources.nodes > 1 else ""
        per_training = per_training or str(resources.devices)
        hint = "training.accelerator: auto requests none on a cluster; write `accelerator: gpu` to train on GPUs"
        if accelerator == "cpu":
            count = "0 (training.accelerator: cpu)"
        elif accelerator == "gpu":
            count = per_training
        elif on_cluster:
            count = f"0 ({hint})"
        else:
            count = f"{per_training} if the machine has GPUs"
            count += f", 0 on a cluster ({hint})" if on_cluster is None else ", else 0"
        return f"GPUs per training: {count}"
