rule tune:
    """Search for the learning rate of a batch size; a killed search resumes from its journal."""
    input:
        data=study.prepared_data,
        network=study.network_file,
    output:
        trials=study.csv("analysis/lr_search/bs{batch_size}"),
        tuned=study.tuning_file("{batch_size}", "tuned.json"),
    log:
        study.log("tune/bs{batch_size}"),
    benchmark:
        study.benchmark("tune/bs{batch_size}")
    # Before other trainings: runs at the tuned rate wait for it, and their analyses for those runs.
    priority: lambda wildcards: study.search_priority(int(wildcards.batch_size))
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
        spec=lambda wildcards: study.search_slice(int(wildcards.batch_size)),
        code=lambda wildcards: hash_code(
            "tune.py", study.model_module, other_files=study.own_model
        ),
    message:
        "Tuning the learning rate of batch size {wildcards.batch_size}"
    script:
        "../scripts/tune.py"
