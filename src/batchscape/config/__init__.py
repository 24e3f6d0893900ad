"""The sections of a study file as typed models; each is the only source of its keys and defaults.

A section imports nothing heavy: the workflow reads these models at every start, and a training
job must not become stale because a section that it does not use was edited.
"""
