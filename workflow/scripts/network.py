"""Check that the network fits the data, and write what was found out about it."""

from batchscape.runtime.job import job_log

import json
from pathlib import Path

import torch
from pydantic import TypeAdapter

from batchscape.config.model import ModelConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.task import TaskConfig
from batchscape.data.prepared import read_prepared
from batchscape.io.files import write_json
from batchscape.runtime.device import choose_device
from batchscape.runtime.gpus import allocate_gpus
from batchscape.tasks.compatibility import validate_network, validate_optimizer

if __name__ == "__main__":
    resources = snakemake.resources
    with job_log(snakemake.log[0]) as echo, allocate_gpus(resources.gpu, resources.jobs_per_gpu):
        torch.set_num_threads(snakemake.threads)
        # With TF32 repeated results on a GPU agree to ten bits only.
        torch.backends.cudnn.allow_tf32 = False
        spec = json.loads(snakemake.params.spec)
        model = TypeAdapter(ModelConfig).validate_python(spec["model"])
        data = read_prepared(Path(snakemake.input.data))
        device = choose_device(spec["accelerator"])
        task = TypeAdapter(TaskConfig).validate_python(spec["task"])
        network = validate_network(model, task, resources.max_batch_size, data, device)
        optimizer = OptimizerConfig.model_validate(spec["optimizer"])
        validate_optimizer(optimizer, model, task, data, device, bool(resources.names_optimizer))
        if network["hessian"] != "computed":
            echo(f"model.name: {network['name']}: eigenvalue and trace of the Hessian are {network['hessian']}")
        if network["unused_methods"]:
            echo(
                f"model.name: {network['name']}: not called: {', '.join(network['unused_methods'])}; the data is that "
                "of the section `data`, and the validation loss is that of training_step in evaluation mode"
            )
        write_json(Path(snakemake.output[0]), network)
