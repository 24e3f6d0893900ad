rule table:
    """One comparison table: mean, spread and number of seeds."""
    input:
        lambda wildcards: [study.csv(source) for source in study.sources(TABLES[wildcards.table])],
    output:
        study.csv("tables/{table}"),
    log:
        study.log("tables/{table}"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.product_slice(TABLES[wildcards.table]),
        code=lambda wildcards: code("table.py", f"batchscape.report.tables.{wildcards.table}"),
    message:
        "Making the table {wildcards.table}"
    script:
        "../scripts/table.py"


rule figure:
    """One figure, for the screen and for print."""
    input:
        lambda wildcards: [study.csv(source) for source in study.sources(FIGURES[wildcards.figure])],
    output:
        png=study.figure("{figure}", "png"),
        pdf=study.figure("{figure}", "pdf"),
    log:
        study.log("figures/{figure}"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.product_slice(FIGURES[wildcards.figure]),
        code=lambda wildcards: code("figure.py", f"batchscape.report.figures.{wildcards.figure}"),
    message:
        "Drawing the figure {wildcards.figure}"
    script:
        "../scripts/figure.py"
