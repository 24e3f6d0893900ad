"""The environment of a job: its log, lock, states, GPUs and Slurm job."""
