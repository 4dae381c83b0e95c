"""The settings that dlfx and its peers are compared in."""

# Q-learning on the cliff (Sutton and Barto 2018, example 6.6); gamma is 1.
EPSILON, ALPHA = 0.1, 0.5

# DQN on CartPole-v1: the published setting of CleanRL's dqn.py (Huang et al. 2022, JMLR 23).
WIDTHS = (4, 120, 84, 2)
CAPACITY, BATCH, GAMMA, LEARNING_STARTS = 10_000, 128, 0.99, 10_000
TRAIN_EVERY, COPY_EVERY, LEARNING_RATE = 10, 500, 2.5e-4
# Held at its mean over the published run (1 to 0.05 in the first half, then 0.05), so that a short measurement asks the
# network for as many actions as a whole run does.
EXPLORING = 0.5 * (1 + 0.05) / 2 + 0.5 * 0.05
