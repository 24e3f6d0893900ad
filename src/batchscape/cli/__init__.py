"""The commands of `python -m batchscape`."""
