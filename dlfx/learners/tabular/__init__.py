"""Reinforcement learning with a table of values: one file per rule, and the loops that give a rule its experience.

`interaction` runs rules that learn from every transition, `episodes` those of Monte Carlo, which learn from whole
episodes. Both give a `Learner`, so that a hundred seeds are one program under `vmap`.
"""
