"""Time an epoch of each batch size for several numbers of devices."""

from batchscape.runtime.job import job_log

from pathlib import Path

from batchscape.config.device_timing import TimingSpec
from batchscape.io.frames import write_frame
from batchscape.runtime.gpus import allocate_gpus
from batchscape.training.timing import time_epochs

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]), allocate_gpus(resources.gpu, exclusive=True) as gpus:
        spec = TimingSpec.model_validate_json(snakemake.params.spec)
        write_frame(Path(snakemake.output[0]), time_epochs(spec, Path(snakemake.input.data), len(gpus)))
