"""Sources → prepared uint8 arrays → batches."""
