"""One module a question; `analyse(run)` answers it for one run, as the rows of a data frame."""
