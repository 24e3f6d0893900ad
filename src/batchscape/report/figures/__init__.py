"""One module a figure: `draw(*sources, **settings)` takes the data frames and settings that the registry in
`batchscape.study.registry` names, in that order, and returns a plotnine plot."""
