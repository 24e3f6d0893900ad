# One rule a question. A rule has the name of the module in batchscape/analysis that answers it.


rule runs:
    """What became of each run, and what it cost."""
    input:
        runs=[study.run_file(run, "run.json") for run in study.runs],
        histories=[study.run_file(run, "history.csv") for run in study.runs],
    output:
        study.csv("tables/runs"),
    log:
        study.log("runs"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        code=code("analyse.py", "batchscape.analysis.runs"),
    message:
        "Analysing all runs: {rule}"
    script:
        "../scripts/analyse.py"


use rule runs as history with:
    output:
        study.csv("analysis/history"),
    log:
        study.log("history"),
    params:
        code=code("analyse.py", "batchscape.analysis.history"),


use rule runs as distance with:
    output:
        study.csv("analysis/distance"),
    log:
        study.log("distance"),
    params:
        code=code("analyse.py", "batchscape.analysis.distance"),


use rule runs as epoch_distance with:
    output:
        study.csv("analysis/epoch_distance"),
    log:
        study.log("epoch_distance"),
    params:
        code=code("analyse.py", "batchscape.analysis.epoch_distance"),


use rule runs as update_norms with:
    output:
        study.csv("analysis/update_norms"),
    log:
        study.log("update_norms"),
    params:
        code=code("analyse.py", "batchscape.analysis.update_norms"),
