"""Claims of the literature about batch size and learning rate, tested on a study.

`statements` lists the claims, `ratios` computes the ratio that each is about for each seed, `t_test` tests its
logarithm, and `verdict` decides.
"""
