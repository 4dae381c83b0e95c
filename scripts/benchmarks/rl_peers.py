"""What one would write instead of dlfx's reinforcement learning: a loop over gymnasium, with NumPy or with PyTorch."""

import time

import gymnasium
import numpy as np
import torch
from torch import nn

BUFFER, BATCH, GAMMA = 10_000, 128, 0.99
START_EPSILON, END_EPSILON, EXPLORED = 1.0, 0.05, 250_000  # the last in steps, half of the published 500,000
TRAIN_EVERY, COPY_EVERY, LEARNING_RATE = 10, 500, 2.5e-4


def q_learning_python(env_id: str = "CliffWalking-v1", steps: int = 100_000, seed: int = 0) -> float:
    """Steps per second of tabular Q-learning, with epsilon 0.1, alpha 0.5 and gamma 1.

    `Q(s, a) <- Q(s, a) + alpha (r + gamma max_a' Q(s', a') - Q(s, a))`

    Args:
      env_id: a gymnasium environment with Discrete observations and actions.
      steps: environment steps to time, after a tenth as many untimed ones.
      seed: of the environment and of the exploration.

    Source: Sutton and Barto 2018, 2nd ed., equation 6.8 and example 6.6 (p. 131).
    """
    env = gymnasium.make(env_id)
    q = np.zeros((env.observation_space.n, env.action_space.n))  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    began = 0.0
    for step in range(-(steps // 10), steps):
        if step == 0:
            began = time.perf_counter()
        action = int(rng.integers(q.shape[1])) if rng.random() < 0.1 else int(q[state].argmax())
        successor, reward, terminated, truncated, _ = env.step(action)
        target = reward + (0.0 if terminated else q[successor].max())  # type: ignore[operator]
        q[state, action] += 0.5 * (target - q[state, action])
        state = env.reset()[0] if terminated or truncated else successor
    seconds = time.perf_counter() - began
    env.close()
    return steps / seconds


def dqn_torch(
    steps: int = 20_000, seed: int = 0, learning_starts: int = 10_000, explored: int = EXPLORED
) -> tuple[float, float]:
    """(Environment steps per second, seconds) of DQN on CartPole-v1, for the steps after learning has started.

    One environment, a network of 120 and 84 hidden units, Adam, a buffer of 10,000 steps, batches of 128, a gradient
    step every 10 steps, a copy to the target network every 500: the published setting of CleanRL's `dqn.py`.
    PyTorch runs with its own number of threads or with one, whichever is faster in 1,000 steps.

    Args:
      steps: environment steps to time. The `learning_starts` steps before them, and 1,000 more, are not timed.
      seed: of the environment, of the network and of the exploration.
      learning_starts: no gradient step before this step.
      explored: the step from which epsilon is 0.05. With 1 the network acts in nearly every step, as it does in the
        second half of the published run; with the published value a short run measures mostly random actions.

    Source: Mnih et al. 2015, Human-level control through deep reinforcement learning, algorithm 1; Huang et al. 2022,
    CleanRL (JMLR 23).
    """
    given = torch.get_num_threads()
    try:
        tried = {count: _dqn(1_000, seed, learning_starts, explored, count)[0] for count in {1, given}}
        seconds, _ = _dqn(steps, seed, learning_starts, explored, min(tried, key=tried.__getitem__))
    finally:
        torch.set_num_threads(given)
    return steps / seconds, seconds


def _dqn(steps: int, seed: int, learning_starts: int, explored: int, threads: int) -> tuple[float, list[float]]:
    """(Seconds of the timed steps, the return of each episode)."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    env = gymnasium.make("CartPole-v1")
    network, target_network = (
        nn.Sequential(nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)) for _ in range(2)
    )
    target_network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    states, successors = np.zeros((2, BUFFER, 4), np.float32)
    actions, rewards, ended = np.zeros(BUFFER, np.int64), np.zeros(BUFFER, np.float32), np.zeros(BUFFER, np.float32)

    def learn(filled: int) -> None:
        rows = rng.integers(filled, size=BATCH)
        state, successor, action, reward, end = (
            torch.from_numpy(column[rows]) for column in (states, successors, actions, rewards, ended)
        )
        with torch.no_grad():
            target = reward + GAMMA * (1 - end) * target_network(successor).amax(1)
        value = network(state).gather(1, action[:, None]).squeeze(1)
        loss = nn.functional.mse_loss(value, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    state, _ = env.reset(seed=seed)
    untimed, returns, began = learning_starts + 1_000, [0.0], 0.0
    for step in range(untimed + steps):
        if step == untimed:
            began = time.perf_counter()
        epsilon = max(END_EPSILON, START_EPSILON + (END_EPSILON - START_EPSILON) * step / explored)
        if rng.random() < epsilon:
            action = int(rng.integers(2))
        else:
            with torch.inference_mode():
                action = int(network(torch.from_numpy(state)).argmax())
        successor, reward, terminated, truncated, _ = env.step(action)
        row = step % BUFFER
        states[row], successors[row], actions[row] = state, successor, action
        rewards[row], ended[row] = reward, terminated
        returns[-1] += float(reward)
        if terminated or truncated:
            successor, _ = env.reset()
            returns.append(0.0)
        state = successor
        if step >= learning_starts and step % TRAIN_EVERY == 0:
            learn(min(step + 1, BUFFER))
        if step >= learning_starts and step % COPY_EVERY == 0:
            target_network.load_state_dict(network.state_dict())
    seconds = time.perf_counter() - began
    env.close()
    return seconds, returns[:-1]
