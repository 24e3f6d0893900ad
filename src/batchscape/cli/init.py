"""`batchscape init`: write a folder in which the workflow of the installed package runs on a study of its own."""

import re
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from batchscape.config.base import sections_in
from batchscape.config.data.section import DataSection
from batchscape.config.data.sources import DEFAULT_TASKS
from batchscape.config.loading import printable
from batchscape.config.study import StudyConfig
from batchscape.errors import UserError
from batchscape.io.files import write_text
from batchscape.runtime.workflow import WORKFLOW

TEMPLATE = Path(__file__).parent / "template"
STUDY_FILE = "study.yaml"
# What the examples of the sources are; those of all others are images.
KINDS = {"table": "table", "diamonds": "table", "arrays": "numbers", "text": "text", "python_docs": "text"}


def init(folder: Path, source: str, task: str | None = None) -> list[str]:
    """Write a study file, a Snakefile that uses the workflow of this package, and its profiles.

    Args:
        folder: A new folder, or one without visible files.
        source: Data source of the study, as in study files; no import path.
        task: Task of the study; by default the one that the source has.

    Returns:
        Lines for the terminal: what was written, and what to do next.

    Raises:
        UserError: The folder has files or cannot be written, or the source cannot be used for the task.
    """
    name = printable(folder)
    study = render_study(_study_name(folder), source, task)
    try:
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(f"{name}: has files, which `init` does not overwrite; give a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / STUDY_FILE, study)
        write_text(folder / "Snakefile", (TEMPLATE / "Snakefile").read_text(encoding="utf-8"))
        for profile in sorted((WORKFLOW / "profiles").glob("*/config.yaml")):
            text = profile.read_text(encoding="utf-8")
            write_text(folder / profile.relative_to(WORKFLOW), f"{text}\n# The study.\nconfigfile: [{STUDY_FILE}]\n")
    except OSError as error:
        raise UserError(f"{name}: cannot be written ({error.strerror}); give another folder")
    needs_files = (field := data_sections()[source].model_fields.get("path")) is not None and field.is_required()
    change = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    return [
        f"{name}: has a study of {source}: {STUDY_FILE}, and what runs it: Snakefile, profiles/",
        *([f"next, edit the section data of {STUDY_FILE}: it names files that do not exist"] if needs_files else []),
        f"{'then' if needs_files else 'next'}: {change}batchscape run {STUDY_FILE} --cores 8",
    ]


def render_study(name: str, source: str, task: str | None = None) -> str:
    """Return a study file with comments. Raises UserError if the source cannot be used for the task."""
    section = data_sections()[source]
    task = task or DEFAULT_TASKS.get(source, section.tasks[0])
    if task not in section.tasks:
        raise UserError(f"--task: {task} is not possible with --data {source}; choose {' or '.join(section.tasks)}")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.get_template("study.yaml.jinja").render(
        name=name,
        source=source,
        task=task,
        other_tasks=[other for other in section.tasks if other != task],
        kind=KINDS.get(source, "images"),
        may_give_split=section.may_give_split,
    )


def data_sections() -> dict[str, type[DataSection]]:
    """Return the section of the study file of each data source, by its name."""
    nested = sections_in(StudyConfig.model_fields["data"].annotation)
    assert nested
    return {name: section for name, section in nested.sections.items() if issubclass(section, DataSection)}


def _study_name(folder: Path) -> str:
    """Return a name for a study like that of its folder, as YAML."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_")[:100] or "study"
    return name if isinstance(YAML(typ="safe", pure=True).load(name), str) else f'"{name}"'
