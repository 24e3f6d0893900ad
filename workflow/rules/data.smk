rule prepare:
    """Read and split the examples once, for all runs of the study."""
    output:
        data=study.paths.prepared_data,
        manifest=study.paths.manifest,
    log:
        study.paths.log("prepare"),
    # The files that the study file names are where Snakemake runs.
    localrule: not SHARES_FILES
    conda:
        "../../envs/batchscape.yaml"
    threads: 8
    params:
        spec=study.specs.data,
        files=lambda wildcards: study.specs.data_files,
        code=lambda wildcards: hash_code(
            "prepare.py", study.source_module, other_files=study.custom_source_files
        ),
    message:
        f"Preparing the data of {study.name}"
    script:
        "../scripts/prepare.py"
