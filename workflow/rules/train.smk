rule network:
    """See that network and batch sizes fit the data, before anything trains."""
    input:
        data=study.prepared_data,
    output:
        study.network_file,
    log:
        study.log("network"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    resources:
        # It looks at the network where that will train.
        gpu=lambda wildcards: asked_gpus(study.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        # No param, or a study with another batch size would look at the network anew, and then train all runs anew.
        largest_batch=max(study.grid.batch_sizes),
    params:
        spec=study.network_slice,
        code=lambda wildcards: code(
            "network.py", study.model_module, others=study.own_model
        ),
    message:
        "Checking that the network fits the data"
    script:
        "../scripts/network.py"


rule train:
    """Train one run; it is whole once its run.json stands."""
    input:
        data=study.prepared_data,
        network=study.network_file,
        tuned=lambda wildcards: study.tuned_files(wildcards.run),
    output:
        run=study.run_file("{run}", "run.json"),
        history=study.run_file("{run}", "history.csv"),
    log:
        study.log("train/{run}"),
    benchmark:
        study.benchmark("train/{run}")
    # A batch size that does not fit in memory fails before the others have trained.
    priority: lambda wildcards: study.run_priority(wildcards.run)
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
        code=lambda wildcards: code(
            "train.py", study.model_module, others=study.own_model
        ),
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"
