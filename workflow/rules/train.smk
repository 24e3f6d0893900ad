rule train:
    """Train one run; it is whole once its run.json stands."""
    input:
        data=study.prepared_data,
        tuned=lambda wildcards: study.tuned_files(wildcards.run),
    output:
        run=study.run_file("{run}", "run.json"),
        history=study.run_file("{run}", "history.csv"),
    log:
        study.log("train/{run}"),
    benchmark:
        study.benchmark("train/{run}")
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=lambda wildcards: study.run_slice(wildcards.run),
        code=code("train.py"),
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"
