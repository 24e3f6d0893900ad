rule network:
    """Check that network and batch sizes fit the data, before anything trains."""
    input:
        data=study.paths.prepared_data,
    output:
        study.paths.network,
    log:
        study.paths.log("network"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    resources:
        # The network is checked on the device that it will train on.
        gpu=lambda wildcards: requested_gpus(study.job_resources.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
        # A resource, not a param: a new batch size must not check the network again, and then retrain all runs.
        max_batch_size=max(map(study.max_batch_size, study.runs.values())),
        # So is whether the optimizer is the default or chosen: that changes no training.
        names_optimizer=int(study.names_optimizer),
    params:
        spec=study.specs.network,
        code=lambda wildcards: hash_code(
            "network.py", study.model_module, other_files=study.custom_training_files
        ),
    message:
        "Checking that the network fits the data"
    script:
        "../scripts/network.py"


rule train:
    """Train one run, which is complete once its run.json exists."""
    input:
        data=study.paths.prepared_data,
        network=study.paths.network,
        tuned=lambda wildcards: study.paths.tuned_rate(wildcards.run),
        stages=lambda wildcards: study.paths.batch_stages(wildcards.run),
    output:
        run=study.paths.run_file("{run}", "run.json"),
        history=study.paths.run_file("{run}", "history.csv"),
        copied=copied_outputs(study.paths.run_file("{run}", "run.json")),
    log:
        study.paths.log("train/{run}"),
    benchmark:
        study.paths.benchmark("train/{run}")
    # A batch size that does not fit in memory fails before others have trained.
    priority: lambda wildcards: study.job_resources.run_priority(wildcards.run)
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
        # Resources, not params: a run need not train again to be branched or tracked, see `branch_state` and `track`.
        states=lambda wildcards: " ".join(study.plan.branch_points(wildcards.run)),
        tracking=study.specs.tracking,
    params:
        spec=lambda wildcards: study.specs.run(wildcards.run),
        code=lambda wildcards: hash_code(
            "train.py", study.model_module, other_files=study.custom_training_files
        ),
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"


rule batch_warmup:
    """Choose the stages of a batch size warm-up from the branches of its setting."""
    input:
        lambda wildcards: study.paths.branches(wildcards.setting),
    output:
        study.paths.batch_stages_file("{setting}"),
    log:
        study.paths.log("batch_warmup/{setting}"),
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=study.specs.batch_warmup,
        code=lambda wildcards: hash_code("batch_warmup.py"),
    message:
        "Choosing the stages of {wildcards.setting}"
    script:
        "../scripts/batch_warmup.py"


rule finalists:
    """Choose the settings that are trained again with other seeds."""
    input:
        runs=study.paths.rows("runs"),
        tuned=list(study.paths.tuned_files.values()),
        stages=list(study.paths.batch_stages_files.values()),
    output:
        study.paths.finalists,
    log:
        study.paths.log("finalists"),
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=study.specs.finalists,
        code=lambda wildcards: hash_code("finalists.py"),
    message:
        "Choosing the finalists"
    script:
        "../scripts/finalists.py"


# Which setting has a rank is known only after all runs have trained, so the job reads it from a file.
rule confirm:
    """Train a finalist with a seed that took no part in its choice."""
    input:
        data=study.paths.prepared_data,
        network=study.paths.network,
        finalists=study.paths.finalists,
    output:
        run=study.paths.confirmation_file("rank{rank}-seed{seed}", "run.json"),
        history=study.paths.confirmation_file("rank{rank}-seed{seed}", "history.csv"),
        copied=copied_outputs(
            study.paths.confirmation_file("rank{rank}-seed{seed}", "run.json")
        ),
    log:
        study.paths.log("confirm/rank{rank}-seed{seed}"),
    benchmark:
        study.paths.benchmark("confirm/rank{rank}-seed{seed}")
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
        tracking=study.specs.tracking,
    params:
        code=lambda wildcards: hash_code(
            "confirm.py", study.model_module, other_files=study.custom_training_files
        ),
    message:
        "Confirming rank{wildcards.rank}-seed{wildcards.seed}"
    script:
        "../scripts/confirm.py"


# Runs track themselves while they train; what is left are those from before the tracker was in the study file, and those
# for which it failed.
rule track:
    """Add to the trackers the complete runs that they lack."""
    input:
        runs=study.paths.run_summaries,
        confirmation=study.paths.confirmation_summaries,
        finalists=[study.paths.finalists] if study.confirmation_runs else [],
    output:
        study.paths.tracked_runs,
    log:
        study.paths.log("track"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        trackers=study.specs.tracking,
        code=lambda wildcards: hash_code("track.py"),
    message:
        "Adding runs to the trackers"
    script:
        "../scripts/track.py"
