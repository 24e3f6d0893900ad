"""Tables, one module each.

`tabulate(*sources, **settings)` of a module takes the data frames and settings that `batchscape.study.registry` lists
for the table, in that order.
"""
