"""Files of a run: frames, weights, directories."""
