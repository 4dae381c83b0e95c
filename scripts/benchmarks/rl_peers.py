"""What one would write instead of dlfx's reinforcement learning: a loop over gymnasium, with NumPy or with PyTorch.

Each in two forms. `usual` is how single files of reinforcement learning are mostly written: gymnasium's wrappers and
spaces, a table as a dictionary, a class for the replay, tensors made anew for each action; only logging is left out.
`lean` does the same arithmetic with what is not needed taken away. All are generators that train on for ever and give
the returns of the episodes so far after every `chunk` steps, so that whoever times them can stop between chunks.
"""

import functools
from collections import defaultdict
from collections.abc import Iterator

import gymnasium
import numpy as np
import torch

from scripts.benchmarks.rl_peers_torch import dqn_lean, dqn_usual
from scripts.benchmarks.rl_setting import ALPHA, EPSILON, LEARNING_STARTS
from scripts.benchmarks.timing import Side, rate

THREADS = torch.get_num_threads()  # what PyTorch takes by itself
Training = Iterator[list[float]]


def q_learning_usual(chunk: int, env_id: str = "CliffWalking-v1", seed: int = 0) -> Training:
    """Tabular Q-learning with a dictionary of arrays. See `q_learning_lean`."""
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(env_id))
    env.action_space.seed(seed)
    np.random.seed(seed)
    count = env.action_space.n  # type: ignore[attr-defined]
    q: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(count))
    state, _ = env.reset(seed=seed)
    returns: list[float] = []
    while True:
        for _ in range(chunk):
            action = env.action_space.sample() if np.random.random() < EPSILON else int(np.argmax(q[state]))
            successor, reward, terminated, truncated, info = env.step(action)
            future = (not terminated) * np.max(q[successor])
            q[state][action] += ALPHA * (float(reward) + future - q[state][action])
            state = successor
            if terminated or truncated:
                returns.append(float(info["episode"]["r"]))
                state, _ = env.reset()
        yield returns


def q_learning_lean(chunk: int, env_id: str = "CliffWalking-v1", seed: int = 0) -> Training:
    """Tabular Q-learning: `Q(s, a) <- Q(s, a) + alpha (r + gamma max_a' Q(s', a') - Q(s, a))`, with gamma 1.

    Args:
      chunk: steps between two yields.
      env_id: a gymnasium environment with Discrete observations and actions.
      seed: of the environment and of the exploration.

    Source: Sutton and Barto 2018, 2nd ed., equation 6.8 and example 6.6 (p. 131).
    """
    env = gymnasium.make(env_id)
    q = np.zeros((env.observation_space.n, env.action_space.n))  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    returns, so_far = [], 0.0
    while True:
        for _ in range(chunk):
            action = int(rng.integers(q.shape[1])) if rng.random() < EPSILON else int(q[state].argmax())
            successor, reward, terminated, truncated, _ = env.step(action)
            target = reward + (0.0 if terminated else q[successor].max())  # type: ignore[operator]
            q[state, action] += ALPHA * (target - q[state, action])
            so_far += float(reward)
            state = successor
            if terminated or truncated:
                returns.append(so_far)
                so_far = 0.0
                state, _ = env.reset()
        yield returns


def sides(kind: str, chunk: int = 1000, learning_starts: int = LEARNING_STARTS) -> tuple[list[Side], dict[str, int]]:
    """The peers of `q_learning` or `dqn`, warmed up: (usual, lean), and the PyTorch threads of each.

    PyTorch runs with as many threads as it takes by itself or with one, whichever is faster in a chunk.
    """
    if kind == "q_learning":
        trained = {"usual": q_learning_usual(chunk), "lean": q_learning_lean(chunk)}
        return [_warm(name, chunk, training, 1) for name, training in trained.items()], {}
    made, threads = [], {}
    for name, form in {"usual": dqn_usual, "lean": dqn_lean}.items():
        training = _warm(name, chunk, form(chunk, learning_starts), learning_starts // chunk + 1)
        tried = {count: training._replace(call=functools.partial(_call, training, count)) for count in {1, THREADS}}
        threads[name] = max(tried, key=lambda count: rate(tried[count], 0.0))
        made.append(tried[threads[name]])
    return made, threads


def _warm(name: str, chunk: int, training: Training, chunks: int) -> Side:
    for _ in range(chunks):
        next(training)
    return Side(name, chunk, functools.partial(next, training))


def _call(training: Side, threads: int) -> list[float]:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return training.call()
