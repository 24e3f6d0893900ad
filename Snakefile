# The workflow at a glance: config → checked study → rules → target `all`.

from snakemake.utils import min_version

# Earlier versions rerun jobs whose script was touched, whatever the rerun triggers are.
min_version("9.27")


report: "workflow/report/study.rst"


include: "workflow/rules/environment.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/handlers.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/analyze.smk"
include: "workflow/rules/report.smk"


# Here, not while the rules are read: a dry run writes nothing, so it needs none of this.
onstart:
    check_path_characters_of_cluster()
    check_nodes()
    check_shared_files()
    check_writable(Path(FOLDER))
    save_study()
    save_hashes()
    delete_reusable_files()


onsuccess:
    print_reused()
    print_report_path()


onerror:
    cancel_orphaned_jobs(log)
    print_failures(log)


rule all:
    """All runs, analyses, tables, figures and the report."""
    default_target: True
    input:
        # Intermediate files too: a job that fails after an edit loses its output, and Snakemake does not make it again
        # as long as an older file at the end of the chain exists.
        list_all_files,
    localrule: True
    message:
        f"All of {study.name}"
