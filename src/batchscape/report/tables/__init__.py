"""One module a table: `tabulate(*sources, **settings)` takes the data frames and settings that the registry in
`batchscape.study.registry` names, in that order."""
