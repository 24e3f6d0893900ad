"""Lightning for tests of the module alone: on a CPU, without a recorder, and with nothing of its own."""

from batchscape.training.lightning import pl


def bare_trainer(epochs: int) -> pl.Trainer:
    """Return a trainer that does nothing but call the module."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
