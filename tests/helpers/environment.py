"""Environment variables of a user's shell that would change what a job does."""

LAUNCHER_VARIABLES = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "x"}
HOSTILE = {
    **LAUNCHER_VARIABLES,
    "PL_TRAINER_FAST_DEV_RUN": "1",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "0.5",
    "PL_TRAINER_GRADIENT_CLIP_VAL": "0.001",
    "PL_GLOBAL_SEED": "x",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "MPLBACKEND": "no such backend",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "GIT_DIR": "/nonexistent",
    "SQUEUE_FORMAT": "%j",
    "SQUEUE_STATES": "PENDING",
    "SLURM_TIME_FORMAT": "relative",
    "SBATCH_ARRAY_INX": "0-3",
}
