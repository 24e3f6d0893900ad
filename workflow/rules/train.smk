rule network:
    """Check that network and batch sizes fit the data, before anything trains."""
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
        # The network is checked on the device that it will train on.
        gpu=lambda wildcards: requested_gpus(study.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        # A resource, not a param: a new batch size must not check the network again, and then retrain all runs.
        max_batch_size=max(study.grid.batch_sizes),
    params:
        spec=study.network_slice,
        code=lambda wildcards: hash_code(
            "network.py", study.model_module, other_files=study.own_model
        ),
    message:
        "Checking that the network fits the data"
    script:
        "../scripts/network.py"


rule train:
    """Train one run, which is complete once its run.json exists."""
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
    # A batch size that does not fit in memory fails before others have trained.
    priority: lambda wildcards: study.run_priority(wildcards.run)
    conda:
        "../../envs/batchscape.yaml"
    threads: study.resources.devices
    resources:
        gpu=lambda wildcards: requested_gpus(study.training_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        devices=study.resources.devices,
        nodes=study.resources.nodes,
        tasks=study.slurm_tasks,
        gres=study.slurm_gres,
    params:
        spec=lambda wildcards: study.run_slice(wildcards.run),
        code=lambda wildcards: hash_code(
            "train.py", study.model_module, other_files=study.own_model
        ),
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"
