rule table:
    """One comparison table: mean, spread and number of seeds."""
    input:
        sources=lambda wildcards: [
            study.paths.csv(source) for source in TABLES[wildcards.table].sources
        ],
        optional=lambda wildcards: [
            study.paths.csv(source)
            for source in study.plan.optional_sources(TABLES[wildcards.table])
        ],
    output:
        report(
            study.paths.csv("tables/{table}"),
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        study.paths.log("tables/{table}"),
    priority: study.job_resources.artifact_priority
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.specs.artifact(TABLES[wildcards.table]),
        code=lambda wildcards: hash_code(
            "table.py", f"batchscape.report.tables.{wildcards.table}"
        ),
    message:
        "Making the table {wildcards.table}"
    script:
        "../scripts/table.py"


rule figure:
    """One figure, as PNG for the report and in the formats that the study asks for."""
    input:
        lambda wildcards: [
            study.paths.csv(source)
            for source in study.plan.sources(FIGURES[wildcards.figure])
        ],
    output:
        png=report(
            study.paths.figure("{figure}", "png"),
            caption="../report/figure.rst",
            category=lambda wildcards: CATEGORIES[wildcards.figure],
            labels=lambda wildcards: {"figure": CAPTIONS[wildcards.figure].title},
        ),
        others=[
            study.paths.figure("{figure}", kind)
            for kind in study.figures.file_formats
            if kind != "png"
        ],
    log:
        study.paths.log("figures/{figure}"),
    priority: study.job_resources.artifact_priority
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.specs.artifact(FIGURES[wildcards.figure]),
        figures=study.specs.figures,
        code=lambda wildcards: hash_code(
            "figure.py", f"batchscape.report.figures.{wildcards.figure}"
        ),
    message:
        "Drawing {output.png}"
    script:
        "../scripts/figure.py"


rule report:
    """One self-contained page: the answer, every figure with its table, the claims, the provenance."""
    input:
        runs=study.paths.run_summaries,
        manifest=study.paths.manifest,
        tables=study.paths.reported_tables,
        analyses=study.paths.reported_analyses,
        figures=[study.paths.figure(figure, "png") for figure in study.plan.figures],
    output:
        study.paths.report,
    log:
        study.paths.log("report"),
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.specs.report,
        code=lambda wildcards: hash_code(
            "report.py",
            other_files=tuple(
                file
                for kind in ("page.*", "*.js")
                for file in (PACKAGE / "report" / "template").glob(kind)
            ),
        ),
    message:
        f"Writing the report of {study.name}"
    script:
        "../scripts/report.py"
