"""From the analyses of all runs to the tables and figures of the study."""
