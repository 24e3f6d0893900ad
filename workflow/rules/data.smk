rule prepare:
    """Decode, scale and split the images once, for all runs of the study."""
    output:
        data=study.prepared_data,
        manifest=study.manifest,
    log:
        study.log("prepare"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 8
    params:
        spec=study.data_slice,
        files=lambda wildcards: study.data_state,
        code=lambda wildcards: hash_code(
            "prepare.py", study.source_module, other_files=study.own_source
        ),
    message:
        f"Preparing the data of {study.name}"
    script:
        "../scripts/prepare.py"
