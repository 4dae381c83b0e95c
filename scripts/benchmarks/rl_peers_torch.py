"""DQN as one would write it in PyTorch instead: a loop over gymnasium, in the two forms of `rl_peers`."""

import random
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

from scripts.benchmarks.rl_setting import (
    BATCH,
    CAPACITY,
    COPY_EVERY,
    EXPLORING,
    GAMMA,
    LEARNING_RATE,
    LEARNING_STARTS,
    TRAIN_EVERY,
    WIDTHS,
)


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, m in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Buffer:
    """The last transitions, as arrays in a ring; a sample is copied into tensors."""

    def __init__(self, capacity: int, observation: tuple[int, ...]) -> None:
        self.capacity, self.place, self.full = capacity, 0, False
        self.states = np.zeros((capacity, *observation), np.float32)
        self.successors = np.zeros((capacity, *observation), np.float32)
        self.actions = np.zeros((capacity, 1), np.int64)
        self.rewards = np.zeros((capacity, 1), np.float32)
        self.ends = np.zeros((capacity, 1), np.float32)

    def add(self, state: Any, successor: Any, action: Any, reward: Any, end: Any) -> None:
        self.states[self.place] = np.array(state)
        self.successors[self.place] = np.array(successor)
        self.actions[self.place] = np.array(action)
        self.rewards[self.place] = np.array(reward)
        self.ends[self.place] = np.array(end)
        self.place += 1
        if self.place == self.capacity:
            self.full, self.place = True, 0

    def sample(self, batch: int) -> tuple[torch.Tensor, ...]:
        rows = np.random.randint(0, self.capacity if self.full else self.place, size=batch)
        columns = (self.states, self.successors, self.actions, self.rewards, self.ends)
        return tuple(torch.tensor(column[rows]) for column in columns)


def dqn_usual(chunk: int, learning_starts: int = LEARNING_STARTS, seed: int = 0) -> Iterator[list[float]]:
    """DQN on CartPole-v1 in a vector environment of one, with a replay class. See `dqn_lean`."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

    def make() -> gymnasium.Env:
        env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))
        env.action_space.seed(seed)
        return env

    envs: Any = gymnasium.vector.SyncVectorEnv([make], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    network, target_network = _network(), _network()
    target_network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    buffer = Buffer(CAPACITY, envs.single_observation_space.shape or ())
    states, _ = envs.reset(seed=seed)
    returns: list[float] = []
    step = 0
    while True:
        for _ in range(chunk):
            if random.random() < EXPLORING:
                actions = np.array([envs.single_action_space.sample() for _ in range(envs.num_envs)])
            else:
                actions = torch.argmax(network(torch.Tensor(states)), dim=1).cpu().numpy()
            observed, rewards, terminated, truncated, infos = envs.step(actions)
            successors = observed.copy()
            for i, over in enumerate(terminated | truncated):
                if over:
                    successors[i] = infos["final_obs"][i]
                    returns.append(float(infos["final_info"]["episode"]["r"][i]))
            buffer.add(states[0], successors[0], actions[0], rewards[0], terminated[0])
            states = observed
            step += 1
            if step > learning_starts and step % TRAIN_EVERY == 0:
                s, successor, action, reward, end = buffer.sample(BATCH)
                with torch.no_grad():
                    best, _ = target_network(successor).max(dim=1)
                    target = reward.flatten() + GAMMA * best * (1 - end.flatten())
                value = network(s).gather(1, action).squeeze()
                loss = nn.functional.mse_loss(target, value)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if step > learning_starts and step % COPY_EVERY == 0:
                for old, new in zip(target_network.parameters(), network.parameters(), strict=True):
                    old.data.copy_(new.data)
        yield returns


def dqn_lean(chunk: int, learning_starts: int = LEARNING_STARTS, seed: int = 0) -> Iterator[list[float]]:
    """DQN on CartPole-v1, in the setting of `rl_setting`: one environment, a gradient step every 10 steps.

    Args:
      chunk: steps between two yields.
      learning_starts: no gradient step before this step.
      seed: of the environment, of the network and of the exploration.

    Source: Mnih et al. 2015, Human-level control through deep reinforcement learning, algorithm 1.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    env = gymnasium.make("CartPole-v1")
    network, target_network = _network(), _network()
    target_network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    states, successors = np.zeros((2, CAPACITY, 4), np.float32)
    actions, rewards, ends = (
        np.zeros(CAPACITY, np.int64),
        np.zeros(CAPACITY, np.float32),
        np.zeros(CAPACITY, np.float32),
    )
    state, _ = env.reset(seed=seed)
    returns, so_far, step = [], 0.0, 0
    while True:
        for _ in range(chunk):
            if rng.random() < EXPLORING:
                action = int(rng.integers(2))
            else:
                with torch.inference_mode():
                    action = int(network(torch.from_numpy(state)).argmax())
            successor, reward, terminated, truncated, _ = env.step(action)
            row = step % CAPACITY
            states[row], successors[row], actions[row] = state, successor, action
            rewards[row], ends[row] = reward, terminated
            so_far += float(reward)
            state = successor
            if terminated or truncated:
                returns.append(so_far)
                so_far = 0.0
                state, _ = env.reset()
            step += 1
            if step > learning_starts and step % TRAIN_EVERY == 0:
                rows = rng.integers(min(step, CAPACITY), size=BATCH)
                columns = (states, successors, actions, rewards, ends)
                s, after, taken, gained, end = (torch.from_numpy(column[rows]) for column in columns)
                with torch.no_grad():
                    target = gained + GAMMA * (1 - end) * target_network(after).amax(1)
                value = network(s).gather(1, taken[:, None]).squeeze(1)
                loss = nn.functional.mse_loss(value, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if step > learning_starts and step % COPY_EVERY == 0:
                target_network.load_state_dict(network.state_dict())
        yield returns
