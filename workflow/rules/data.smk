rule prepare:
    """Load, scale and split the images once, for all runs of the study."""
    output:
        study.prepared_data,
    log:
        study.log("prepare"),
    conda:
        "../../envs/batchscape.yaml"
    threads: 1
    params:
        spec=study.data_slice,
        code=code("prepare.py"),
    message:
        "Preparing the data of {study.name}"
    script:
        "../scripts/prepare.py"
