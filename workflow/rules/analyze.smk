# One rule per question, named like the module in batchscape/analysis that answers it.


rule runs:
    """The final status of each run, and what it cost."""
    input:
        runs=study.paths.run_summaries,
        # Only here, though other analyses read them too: there are as many as runs.
        histories=list_histories(),
        copied=copied_inputs(study.paths.run_summaries),
    output:
        study.paths.rows("runs"),
    log:
        study.paths.log("runs"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        code=lambda wildcards: hash_code("analyze_runs.py", "batchscape.analysis.runs"),
    message:
        "Analyzing all runs: {rule}"
    script:
        "../scripts/analyze_runs.py"


# The other analyses of all runs find them in the rows of the first one: each list of all runs takes Snakemake seconds to
# plan in a study of ten thousand.
use rule runs as history with:
    input:
        table=study.paths.rows("runs"),
        copied=copied_inputs(study.paths.run_summaries, with_summaries=True),
    output:
        study.paths.rows("history"),
    log:
        study.paths.log("history"),
    params:
        code=lambda wildcards: hash_code(
            "analyze_runs.py", "batchscape.analysis.history"
        ),


use rule history as distance with:
    output:
        study.paths.rows("distance"),
    log:
        study.paths.log("distance"),
    params:
        code=lambda wildcards: hash_code(
            "analyze_runs.py", "batchscape.analysis.distance"
        ),


use rule history as epoch_distance with:
    output:
        study.paths.rows("epoch_distance"),
    log:
        study.paths.log("epoch_distance"),
    params:
        code=lambda wildcards: hash_code(
            "analyze_runs.py", "batchscape.analysis.epoch_distance"
        ),


use rule history as update_norms with:
    output:
        study.paths.rows("update_norms"),
    log:
        study.paths.log("update_norms"),
    params:
        code=lambda wildcards: hash_code(
            "analyze_runs.py", "batchscape.analysis.update_norms"
        ),


rule confirmation:
    """The final status of each run of the confirmation, and what it cost."""
    input:
        runs=study.paths.confirmation_summaries,
        finalists=study.paths.finalists,
        copied=copied_inputs(study.paths.confirmation_summaries),
    output:
        study.paths.rows("confirmation"),
    log:
        study.paths.log("confirmation"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        code=lambda wildcards: hash_code("confirmation.py"),
    message:
        "Analyzing {rule}"
    script:
        "../scripts/confirmation.py"


# Expensive questions about the loss around the weights of a run: one job for all seeds of a setting, so that starting a
# job does not cost more than its work. It caches the rows of each run, so that after a kill, or with a new seed, only
# missing ones are computed. The rows of all jobs are then gathered.


rule sharpness:
    """How sharp the training loss is around the weights of a setting's runs."""
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "sharpness", wildcards.setting
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("sharpness", wildcards.setting)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/sharpness/{setting}"),
    log:
        study.paths.log("sharpness/{setting}"),
    benchmark:
        study.paths.benchmark("sharpness/{setting}")
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: requested_gpus(study.job_resources.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
    params:
        spec=study.specs.analysis("sharpness"),
        code=lambda wildcards: hash_code(
            "analyze_setting.py", "batchscape.analysis.sharpness"
        ),
    message:
        "Analyzing {wildcards.setting}: {rule}"
    script:
        "../scripts/analyze_setting.py"


use rule sharpness as gradient_alignment with:
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "gradient_alignment", wildcards.setting
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("gradient_alignment", wildcards.setting)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/gradient_alignment/{setting}"),
    log:
        study.paths.log("gradient_alignment/{setting}"),
    benchmark:
        study.paths.benchmark("gradient_alignment/{setting}")
    params:
        spec=study.specs.analysis("gradient_alignment"),
        code=lambda wildcards: hash_code(
            "analyze_setting.py", "batchscape.analysis.gradient_alignment"
        ),


use rule sharpness as trajectory with:
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "trajectory", wildcards.setting
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("trajectory", wildcards.setting)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/trajectory/{setting}"),
    log:
        study.paths.log("trajectory/{setting}"),
    benchmark:
        study.paths.benchmark("trajectory/{setting}")
    params:
        spec=study.specs.analysis("trajectory"),
        code=lambda wildcards: hash_code(
            "analyze_setting.py", "batchscape.analysis.trajectory"
        ),


use rule sharpness as curvature with:
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "curvature", wildcards.setting
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("curvature", wildcards.setting)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/curvature/{setting}"),
    log:
        study.paths.log("curvature/{setting}"),
    benchmark:
        study.paths.benchmark("curvature/{setting}")
    params:
        spec=study.specs.analysis("curvature"),
        code=lambda wildcards: hash_code(
            "analyze_setting.py", "batchscape.analysis.curvature"
        ),


use rule sharpness as spectral_density with:
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "spectral_density", wildcards.setting
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("spectral_density", wildcards.setting)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/spectral_density/{setting}"),
    log:
        study.paths.log("spectral_density/{setting}"),
    benchmark:
        study.paths.benchmark("spectral_density/{setting}")
    params:
        spec=study.specs.analysis("spectral_density"),
        code=lambda wildcards: hash_code(
            "analyze_setting.py", "batchscape.analysis.spectral_density"
        ),


rule landscape:
    """The training loss on one part of a plane of two random directions around the weights of a run."""
    input:
        run=study.paths.run_file("{run}", "run.json"),
        copied=copied_inputs([study.paths.run_file("{run}", "run.json")]),
        data=study.paths.prepared_data,
    output:
        study.paths.csv(
            "analysis/landscape/{run}/directions{directions}-part{part}of{parts}"
        ),
    log:
        study.paths.log("landscape/{run}/directions{directions}-part{part}of{parts}"),
    benchmark:
        study.paths.benchmark(
            "landscape/{run}/directions{directions}-part{part}of{parts}"
        )
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: requested_gpus(study.job_resources.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
    params:
        spec=study.specs.analysis("landscape"),
        code=lambda wildcards: hash_code("landscape.py"),
    message:
        "Analyzing {wildcards.run}: {rule} {wildcards.directions}, part {wildcards.part} of {wildcards.parts}"
    script:
        "../scripts/landscape.py"


rule interpolation:
    """Loss and accuracy on the lines through the weights of the runs of two settings, seed by seed."""
    input:
        runs=lambda wildcards: study.paths.analyzed_run_summaries(
            "interpolation", wildcards.setting
        ),
        others=lambda wildcards: study.paths.analyzed_run_summaries(
            "interpolation", wildcards.other
        ),
        copied=lambda wildcards: copied_inputs(
            study.paths.analyzed_run_summaries("interpolation", wildcards.setting)
            + study.paths.analyzed_run_summaries("interpolation", wildcards.other)
        ),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("analysis/interpolation/{setting}--{other}"),
    log:
        study.paths.log("interpolation/{setting}--{other}"),
    benchmark:
        study.paths.benchmark("interpolation/{setting}--{other}")
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: requested_gpus(study.job_resources.analysis_gpus),
        jobs_per_gpu=study.resources.jobs_per_gpu,
    params:
        spec=study.specs.analysis("interpolation"),
        code=lambda wildcards: hash_code("interpolation.py"),
    message:
        "Analyzing {wildcards.setting}: {rule} to {wildcards.other}"
    script:
        "../scripts/interpolation.py"


# Not one job for all seeds of a setting, as above: branches are trainings, which take as long as a run, so the seeds of a
# study of long runs branch in parallel, each as soon as its run is complete.
rule branching:
    """The loss of the branches of a run from a point on, which continue it with multiples of its batch size."""
    input:
        run=study.paths.run_file("{run}", "run.json"),
        data=study.paths.prepared_data,
    output:
        study.paths.csv("branches/{run}/at{point}"),
    log:
        study.paths.log("branching/{run}/at{point}"),
    benchmark:
        study.paths.benchmark("branching/{run}/at{point}")
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
        spec=study.specs.branch,
        factors=study.specs.branch_factors,
        code=lambda wildcards: hash_code(
            "branching.py", study.model_module, other_files=study.custom_training_files
        ),
    message:
        "Analyzing {wildcards.run}: branching at {wildcards.point}"
    script:
        "../scripts/branching.py"


rule device_timing:
    """Time per epoch by batch size and number of devices, measured while no other job runs."""
    input:
        data=study.paths.prepared_data,
        network=study.paths.network,
    output:
        study.paths.rows("device_timing"),
    log:
        study.paths.log("device_timing"),
    # First: later the machine would have to become idle for it. Above the sum of the priorities of all jobs that could
    # start in its place, because Snakemake starts the set of jobs with the largest sum.
    priority: 1000
    conda:
        "../../envs/batchscape.yaml"
    # All cores, so that no other job runs; on a cluster the profile requests an exclusive node.
    threads: lambda wildcards: study.job_resources.timing_devices if on_cluster() else workflow.cores
    resources:
        gpu=lambda wildcards: requested_gpus(study.job_resources.timing_gpus),
    params:
        spec=study.specs.timing,
        code=lambda wildcards: hash_code(
            "device_timing.py",
            study.model_module,
            other_files=study.custom_training_files,
        ),
    message:
        "Timing epochs on several devices"
    script:
        "../scripts/device_timing.py"


rule gather:
    """The rows of all jobs of an analysis."""
    input:
        lambda wildcards: study.paths.partial_outputs_of(wildcards.rows),
    output:
        study.paths.csv("{rows}"),
    log:
        study.paths.log("gather/{rows}"),
    priority: study.job_resources.artifact_priority
    localrule: True
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        code=lambda wildcards: hash_code("gather.py"),
    message:
        "Gathering {wildcards.rows}"
    script:
        "../scripts/gather.py"
