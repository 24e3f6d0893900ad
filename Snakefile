# A study at a glance: config → checked study → rules → target `all`.

from snakemake.utils import min_version

# Earlier ones rerun what a touched script made, whatever the rerun triggers say.
min_version("9.27")


report: "workflow/report/study.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/aggregate.smk"


# Where the jobs go to a cluster, these stay: each takes a few seconds.
localrules:
    all,
    gather,
    table,
    figure,
    report,


# Not while the rules are read: what only looks, as a dry run does, needs to write nothing.
onstart:
    refuse_read_only(Path(study.folder))


onerror:
    print(
        "What is whole stays as it is. The same command goes on from here, once the cause of an error is mended.",
        file=sys.stderr,
    )


rule all:
    """The report, and every table and figure of the study."""
    default_target: True
    input:
        study.report,
        study.csv("tables/runs"),
        [study.csv(f"tables/{table}") for table in study.tables],
        [study.csv(GATHERED[analysis]) for analysis in study.gathered],
        [study.figure(figure, kind) for figure in study.figures for kind in ("png", "pdf")],
