rule tune:
    """Search for the learning rate of a batch size; a killed search resumes from its journal."""
    input:
        data=study.paths.prepared_data,
        network=study.paths.network,
    output:
        trials=study.paths.csv("analysis/lr_search/bs{batch_size}"),
        tuned=study.paths.tuning_file("{batch_size}", "tuned.json"),
    log:
        study.paths.log("tune/bs{batch_size}"),
    benchmark:
        study.paths.benchmark("tune/bs{batch_size}")
    # Before other trainings: runs at the tuned rate wait for it, and their analyses for those runs.
    priority: lambda wildcards: study.job_resources.search_priority(int(wildcards.batch_size))
    conda:
        "../../envs/batchscape.yaml"
    threads: study.resources.devices
    resources:
        gpu=lambda wildcards: requested_gpus(study.job_resources.training_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        devices=study.resources.devices,
        nodes=study.resources.nodes,
        tasks=study.job_resources.slurm_tasks,
        gres=study.job_resources.slurm_gres,
    params:
        spec=lambda wildcards: study.specs.search(int(wildcards.batch_size)),
        code=lambda wildcards: hash_code(
            "tune.py", study.model_module, other_files=study.custom_training_files
        ),
    message:
        "Tuning the learning rate of batch size {wildcards.batch_size}"
    script:
        "../scripts/tune.py"
