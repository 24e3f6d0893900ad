"""One module a question; `analyze(run)` answers it for one run, as the rows of a data frame."""
