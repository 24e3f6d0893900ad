# The study of this invocation, read and checked once.

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake_interface_executor_plugins.settings import ExecMode

IS_MODULE = not workflow.modifier.is_main_snakefile()
IS_JOB = workflow.exec_mode != ExecMode.DEFAULT
# The path of the copy of the study in the environment of the jobs: on a cluster each of them reads the study again, and
# its file may be edited meanwhile. The name of the copy is a hash of the study, also where there is no copy.
COPY_VARIABLE = f"BATCHSCAPE_STUDY_{__name__}" if IS_MODULE else "BATCHSCAPE_STUDY"
COPIES = Path(".snakemake", "batchscape").absolute()


def load_study():
    """Return the study, its file if that alone describes it, and its content as bytes.

    Fail with one line for each mistake in it.
    """
    try:
        return read_module_config() if IS_MODULE else read_study_file()
    except UserError as error:
        fail(error)


def read_study_file():
    """Read the file that `--configfile` or the including Snakefile names.

    Snakemake merges all config files, so the file is read again here, by itself.
    """
    files = workflow.overwrite_configfiles or workflow.configfiles
    if len(files) > 1:
        raise UserError(
            "--configfile: a study is one self-contained file; give only one"
        )
    relative = shorten(Path(files[0]) if files else ROOT / "config" / "config.yaml")
    assignments = workflow.config_settings.config_args
    checked, content = read_copied(relative, *read_assignments(assignments))
    return checked, None if assignments else relative, content


def read_copied(file, *assignments):
    """Return the study in a file and the bytes of that; in a job those from when Snakemake started, if it can see them."""
    copy = Path(os.environ.get(COPY_VARIABLE, ""))
    content_file = copy if IS_JOB and copy.is_file() else file
    checked = Study.from_mapping(read_yaml(content_file), printable(file), *assignments)
    content = content_file.read_bytes()
    check_surroundings(checked, file, content)
    return checked, content


def check_surroundings(checked, source, content):
    """Fail if a file or package that the study names is missing, or in a job if the study was edited meanwhile.

    A job need not have those files: it may run where only its inputs are.
    """
    name = f"study-{hashlib.sha256(content).hexdigest()[:16]}.yaml"
    if not IS_JOB:
        checked.require_files(str(source))
        checked.require_packages(str(source))
        os.environ[COPY_VARIABLE] = str(COPIES / name)
    elif name != Path(os.environ.get(COPY_VARIABLE, name)).name:
        raise UserError(
            f"{source}: was edited while Snakemake runs; put it back, or run the same command again"
        )


def shorten(path):
    """Return the path of a file from the working directory, if it is in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def read_module_config():
    """Read the `config` that an outer Snakefile passes to this workflow as a module."""
    if not (config and isinstance(config, Mapping)):
        raise UserError(
            f"module {__name__}: has no study; add `config: config` to it, and "
            '`configfile: "config/config.yaml"` above it'
        )
    if file := find_study_file(config):
        checked, content = read_copied(file)
        return checked, file, content
    source = ", ".join(map(str, workflow.configfiles)) or "config"
    values, texts = find_assignments(config)
    checked = Study.from_mapping(
        remove_assigned_text(config, values, texts), source, values, texts
    )
    content = checked.model_dump_json().encode()
    check_surroundings(checked, source, content)
    return checked, None, content


def find_study_file(config):
    """Return the file that holds all of the config of a module, and nothing else; None if there is none.

    The file is read again, by itself: Snakemake reads YAML 1.1, in which `no` is false and `010` is 8.
    """
    files = set(map(Path, workflow.configfiles))
    if len(files) > 1 or not files or workflow.config_settings.config_args:
        return None
    (file,) = files
    is_complete = config is workflow.modifier_stack[0].globals["config"]
    return shorten(file) if is_complete and load_configfile(file) == config else None


def find_assignments(config):
    """Return what `--config` assigns to the config of a module, which is the outer config or one of its sections."""
    values, texts = read_assignments(workflow.config_settings.config_args)
    outer = workflow.modifier_stack[0].globals["config"]
    unvisited = [(outer, values, texts)]
    while unvisited:
        section, assigned_values, assigned_texts = unvisited.pop()
        if section is config:
            return assigned_values, assigned_texts
        unvisited += [
            (section[key], assigned_values[key], assigned_texts[key])
            for key in assigned_values
            if all(
                isinstance(part.get(key), Mapping)
                for part in (section, assigned_values, assigned_texts)
            )
        ]
    return {}, {}


def parse_targets():
    """Return the targets as Snakemake's own parser finds them: it does not provide them while rules are read."""
    if not any("results/" in argument for argument in sys.argv[1:]):
        return []  # making the parser takes 0.2 s
    from snakemake.cli import get_argument_parser

    parsed, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    return [os.path.relpath(target) for target in parsed.targets]


def check_targets(targets):
    """Fail if a target belongs to another study, or to a run that this study lacks: Snakemake would give a traceback."""
    known = {name for run in study.runs.values() for name in (run.name, run.setting)}
    known |= study.confirmation_runs.keys()
    folder = workflow.modifier.modify_path(f"{study.paths.folder}/")
    gathered = {f"{folder}{part}" for part in ("analysis", "tables", "figures")}
    outputs = targets and set(map(workflow.modifier.modify_path, study.paths.outputs))
    for target in targets:
        if f"{target}/" == folder:
            fail(
                f"{target}: is the folder of the study {study.name}; request `all` to make what is in it"
            )
        if not target.startswith(folder):
            # Beside a module, other rules may write to `results/`.
            if target.startswith("results/") and not IS_MODULE:
                fail(
                    f"{target}: does not belong to the study {study.name}; give its study file: --configfile FILE"
                )
            continue
        named = [
            match[0]
            for match in re.finditer(
                f"{SETTING_PATTERN}(-seed\\d+)?|rank\\d+-seed\\d+",
                target.removeprefix(folder),
            )
        ]
        unknown = [name for name in named if name not in known]
        if unknown:
            fail(
                f"{target}: the study {study.name} has no runs {unknown[0]}; its runs have names such as "
                f"{next(iter(study.runs))}, and `batchscape check FILE` lists their settings"
            )
        for size in map(int, re.findall(r"\bbs(\d+)[/.]", target.removeprefix(folder))):
            if size not in study.grid.batch_sizes:
                fail(
                    f"{target}: batch size {size} is not in grid.batch_sizes of the study {study.name}; it has "
                    f"{', '.join(map(str, study.grid.batch_sizes))}"
                )
        if os.path.dirname(target) in gathered and target not in outputs:
            fail(
                f"{target}: the study {study.name} does not make it, such as because its section is not enabled; "
                "`snakemake -n all` lists what it makes"
            )


study, STUDY_FILE, STUDY_CONTENT = load_study()
# For the handlers: only while the rules are read does Snakemake know the `prefix` of a module.
FOLDER = workflow.modifier.modify_path(study.paths.folder)
REPORT = workflow.modifier.modify_path(study.paths.report)
if not IS_JOB:
    # Of another Snakemake, whose job started this one.
    os.environ.pop(CODE_VARIABLE, None)
    check_targets(parse_targets())
