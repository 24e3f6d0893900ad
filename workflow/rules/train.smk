rule network:
    """See that network, batch sizes and data fit one another, before anything trains."""
    input:
        data=study.prepared_data,
    output:
        # What stood there comes back if the job fails: without it all trainings would be made anew.
        update(study.network_file),
    log:
        study.log("network"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=study.network_slice,
        code=lambda wildcards: code("network.py", others=study.own_model),
    message:
        "Checking that network, batch sizes and data fit one another"
    script:
        "../scripts/network.py"


rule train:
    """Train one run; it is whole once its run.json stands."""
    input:
        data=study.prepared_data,
        # There, not newer: another batch size in the study changes no run that there is.
        network=ancient(study.network_file),
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
    threads: study.resources.devices
    resources:
        gpu=lambda wildcards: asked_gpus(study.training_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        devices=study.resources.devices,
        nodes=study.resources.nodes,
        tasks=study.slurm_tasks,
        gres=study.slurm_gres,
    params:
        spec=lambda wildcards: study.run_slice(wildcards.run),
        code=lambda wildcards: code("train.py", others=study.own_model),
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"
