# A study at a glance: config → checked study → rules → target `all`.

from snakemake.utils import min_version

# Earlier ones rerun what a touched script made, whatever the rerun triggers say.
min_version("9.27")


report: "workflow/report/study.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/analyze.smk"
include: "workflow/rules/report.smk"


# Not while the rules are read: what only looks, as a dry run does, needs to write nothing.
onstart:
    refuse_letters_on_cluster()
    refuse_several_nodes()
    refuse_read_only(Path(study.folder))
    forget_forced()


onsuccess:
    report_kept()
    tell_report()


onerror:
    cancel_what_is_left(log)
    tell_failures(log)


rule all:
    """All that the study makes: runs, analyses, tables, figures and the report."""
    default_target: True
    input:
        # Also what is only on the way to the report: a job that fails after an edit loses its file, and Snakemake makes
        # nothing on the way anew while an older file at its end is there.
        lambda wildcards: files_of_study(),
    localrule: True
    message:
        f"All of {study.name}"
