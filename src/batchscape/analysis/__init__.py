"""Analyses of runs, one module each; `analyze` returns the rows of a run as a data frame."""
