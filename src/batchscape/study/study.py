"""A study: a checked study file, and all that follows from it.

The workflow asks a `Study` what there is to compute, from what, and where. The library's lower layers never import it,
so an edit of one section makes no unrelated job stale.
"""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from batchscape.config.data.sources import source_module
from batchscape.config.model import model_module
from batchscape.config.study import StudyConfig
from batchscape.config.tracking import PACKAGES
from batchscape.errors import UserError
from batchscape.runtime.user_code import module_file
from batchscape.study.paths import Paths
from batchscape.study.plan import Plan
from batchscape.study.resources import JobResources
from batchscape.study.specs import Specs


class Study(StudyConfig):
    """A checked study file: its sections, and the plan, the paths, the specs and the job resources that follow."""

    @cached_property
    def plan(self) -> Plan:
        """What there is to compute: trainings, analyses, tables and figures."""
        return Plan(self)

    @cached_property
    def paths(self) -> Paths:
        """Where the files of the study are."""
        return Paths(self, self.plan)

    @cached_property
    def specs(self) -> Specs:
        """What each job depends on, as canonical JSON."""
        return Specs(self, self.plan)

    @cached_property
    def job_resources(self) -> JobResources:
        """GPUs, Slurm options and priorities of the jobs."""
        return JobResources(self)

    @property
    def model_module(self) -> str:
        """The module that builds the network, which jobs import by name."""
        return model_module(self.model.name, self.task.has_own_loss)

    @property
    def source_module(self) -> str:
        """The module that loads the data, which jobs import by name."""
        return source_module(self.data.source)

    @property
    def custom_training_files(self) -> tuple[Path, ...]:
        """The modules of a custom network, loss, metrics and optimizer; those of torch do not count in fingerprints.

        Raises:
            UserError: A module does not exist.
        """
        keys = {self.model.name: "model.name"} if ":" in self.model.name else {}
        keys |= {self.optimizer.name: "optimizer.name"} if ":" in self.optimizer.name else {}
        keys |= {path: "task.loss" if path == self.task.loss else "task.metrics" for path in self.task.custom_code}
        files = {path: module_file(path, key) for path, key in keys.items()}
        return tuple(file for path, file in files.items() if not path.startswith("torch."))

    @property
    def custom_source_files(self) -> tuple[Path, ...]:
        """The module of a custom data source.

        Raises:
            UserError: The module does not exist.
        """
        return (module_file(self.data.source, "data.source"),) if ":" in self.data.source else ()

    def require_files(self, source: str) -> None:
        """Check that all files that the study file names exist.

        Args:
            source: Name of the study file for error messages.

        Raises:
            UserError: A file does not exist.
        """
        try:
            _ = self.custom_training_files, self.custom_source_files
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        for key, path in self.data.files.items():
            if not Path(path).exists():
                hint = "" if Path(path).is_absolute() else " (relative to the folder in which the workflow runs)"
                raise UserError(f"{source}: data.{key}: {path} does not exist{hint}")

    def require_packages(self, source: str) -> None:
        """Check that the packages of all trackers are installed.

        Args:
            source: Name of the study file for error messages.

        Raises:
            UserError: A package is not installed.
        """
        for tracker in self.tracking:
            package = PACKAGES.get(tracker)
            found = find_spec(package) if package else None
            # A folder of that name, such as the one in which wandb writes, has no origin.
            if package and (found is None or found.origin is None):
                raise UserError(
                    f"{source}: tracking: the package {package} is not installed; run `pip install "
                    f"'batchscape[{tracker}]'`, or remove {tracker} from the list"
                )
