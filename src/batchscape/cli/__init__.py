"""The commands of `batchscape`."""
