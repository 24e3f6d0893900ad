"""Training: batches by (seed, epoch), the Lightning module, the record, the run directory."""
