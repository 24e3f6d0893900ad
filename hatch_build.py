"""What the wheel contains besides the package: the workflow. An editable installation reads it in the clone."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WorkflowBuildHook(BuildHookInterface):
    """Adds the files of the section `files` of this hook in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel of the version `standard`; the other one is `editable`."""
        if version == "standard":
            build_data["force_include"].update(self.config["files"])
