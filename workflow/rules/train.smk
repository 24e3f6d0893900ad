# Runs that train alone have a rule, and so has each group of seeds that share a process (resources.seeds_per_job).
TRAIN_RULES = training_rules(
    "train",
    SETTING_PATTERN,
    study.grid.seeds,
    study.resources.seeds_per_job,
    find_complete_runs(f"{study.paths.folder}/runs"),
)
CONFIRM_RULES = training_rules(
    "confirm",
    r"rank\d+",
    study.confirmation_seeds,
    study.resources.seeds_per_job,
    find_complete_runs(f"{study.paths.folder}/confirmation"),
)
TRAIN_RULE_NAMES = tuple(rule_of_runs.name for rule_of_runs in TRAIN_RULES)
CONFIRM_RULE_NAMES = tuple(rule_of_runs.name for rule_of_runs in CONFIRM_RULES)
share_profile(TRAIN_RULE_NAMES)
share_profile(CONFIRM_RULE_NAMES)


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


for rule_of_runs in TRAIN_RULES:

    rule:
        """Train runs of a setting, one after the other, each of which is complete once its run.json exists."""
        name:
            rule_of_runs.name
        input:
            data=lambda wildcards: data_for(TRAIN_RULE_NAMES),
            network=study.paths.network,
            tuned=of_first_run(rule_of_runs, study.paths.tuned_rate),
            stages=of_first_run(rule_of_runs, study.paths.batch_stages),
        output:
            run=[study.paths.run_file(run, "run.json") for run in rule_of_runs.runs],
            history=[
                study.paths.run_file(run, "history.csv") for run in rule_of_runs.runs
            ],
            copied=copied_outputs(
                [study.paths.run_file(run, "run.json") for run in rule_of_runs.runs]
            ),
        log:
            [study.paths.log(f"train/{run}") for run in rule_of_runs.runs],
        benchmark:
            study.paths.benchmark(f"train/{rule_of_runs.label}")
        wildcard_constraints:
            **rule_of_runs.constraints,
        # A batch size that does not fit in memory fails before others have trained.
        priority: of_first_run(rule_of_runs, study.job_resources.run_priority)
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
            # Resources, not params: a run need not train again to be branched or tracked, see `branching` and `track`.
            states=of_runs(rule_of_runs, list_states),
            tracking=study.specs.tracking,
        # The same for all seeds: a run stays up to date whichever seeds share a process.
        params:
            spec=of_first_run(rule_of_runs, study.specs.without_seed),
            code=lambda wildcards: hash_code(
                "train.py",
                study.model_module,
                other_files=study.custom_training_files,
            ),
        message:
            f"Training {rule_of_runs.message}"
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
for rule_of_runs in CONFIRM_RULES:

    rule:
        """Train a finalist with seeds that took no part in its choice."""
        name:
            rule_of_runs.name
        input:
            data=lambda wildcards: data_for(CONFIRM_RULE_NAMES),
            network=study.paths.network,
            finalists=study.paths.finalists,
        output:
            run=[
                study.paths.confirmation_file(run, "run.json")
                for run in rule_of_runs.runs
            ],
            history=[
                study.paths.confirmation_file(run, "history.csv")
                for run in rule_of_runs.runs
            ],
            copied=copied_outputs(
                [
                    study.paths.confirmation_file(run, "run.json")
                    for run in rule_of_runs.runs
                ]
            ),
        log:
            [study.paths.log(f"confirm/{run}") for run in rule_of_runs.runs],
        benchmark:
            study.paths.benchmark(f"confirm/{rule_of_runs.label}")
        wildcard_constraints:
            **rule_of_runs.constraints,
        priority: study.job_resources.confirmation_priority
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
                "confirm.py",
                study.model_module,
                other_files=study.custom_training_files,
            ),
        message:
            f"Confirming {rule_of_runs.message}"
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
