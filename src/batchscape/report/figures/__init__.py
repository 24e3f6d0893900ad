"""One module per figure, whose `draw(*sources, **settings)` returns a plotnine plot.

`batchscape.study.registry` lists the data frames and settings that each figure takes, in this order.
"""
