"""What a job needs around its work: log, lock, device, cluster."""
