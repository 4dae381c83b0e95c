"""An environment from the tables of a Markov decision process, as cheap to step as a look-up."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.envs import pictures
from dlfx.envs.episodes import episodic
from dlfx.ops.mdp import MDP, check
from dlfx.types import Array, Environment, Key


def environment(name: str, mdp: MDP, *, max_steps: int = 0, render: Callable[[Any], Any] | None = None) -> Environment:
    """The process as something to act in: state and observation are both the number of the state, [] int32.

    `s' ~ P(. | s, a)`, `r = R(s, a, s')`, terminated when s' is terminal; a new episode begins from `start`.

    The dense tables are turned into lists of successors, so that a step costs the same however many states there are.
    A process without chance draws no random bits.

    Args:
      name: what `--env` calls it.
      mdp: the tables; they are checked. The reward is the expected one of (s, a, s'): where chance decides between
        several rewards of the same passage, their mean is given. gamma is the agent's affair and not used.
      max_steps: after so many steps an episode is truncated; 0: never.
      render: a state's number to a picture `[H, W, 3]` uint8; None: the states in a row.

    Raises:
      UserError: if the tables are no Markov decision process.

    Source: Sutton and Barto 2018, section 3.1.
    """
    transition, reward, _, start, terminal = (np.asarray(x) for x in check(mdp))
    states, actions, _ = transition.shape
    follows, reward_of, chances = (jnp.asarray(x) for x in _successors(transition, reward, terminal))
    width = len(chances) // (states * actions)
    starts = np.flatnonzero(start).astype(np.int32)
    first, first_chances = jnp.asarray(starts), jnp.asarray(_cumulative(start[None, starts])).reshape(-1)

    def begin(key: Key) -> tuple[Array, Array]:
        state = _look_up(first, _search(key, first_chances, jnp.int32(0), len(first_chances)))
        return state, state

    def dynamics(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, Array]:
        entry = _search(key, chances, (state * actions + action) * width, width)
        code = _look_up(follows, entry)
        terminated = code < 0
        successor = jnp.where(terminated, ~code, code)
        return successor, successor, _look_up(reward_of, entry), terminated

    return episodic(
        name,
        begin,
        dynamics,
        num_actions=actions,
        render=render or (lambda state: pictures.strip(terminal, state)),
        num_states=states,
        max_steps=max_steps,
    )


def _search(key: Key, chances: Array, row: Array, width: int) -> Array:
    """The place in `chances` of a successor drawn from the row that begins at `row`: by halving, without a loop."""
    if width == 1:
        return row
    u = jax.random.uniform(key)
    step = width // 2
    while step:
        row = row + step * (u >= _look_up(chances, row + step - 1)).astype(jnp.int32)
        step //= 2
    return row


def _look_up(table: Array, index: Array) -> Array:
    # No negative index is ever asked for; without the promise every look-up pays for the possibility.
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _successors(transition: np.ndarray, reward: np.ndarray, terminal: np.ndarray) -> tuple[np.ndarray, ...]:
    """A row for every state and action, flat: successors (~s' if terminal), rewards, cumulative probabilities."""
    states, actions, _ = transition.shape
    possible = (transition > 0) & ~terminal[:, None, None]
    s, a, successor = np.nonzero(possible)
    column = (possible.cumsum(-1) - 1)[s, a, successor]
    shape = (states, actions, int(possible.sum(-1).max(initial=1)))
    follows, reward_of, probability = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape)
    follows[s, a, column] = np.where(terminal[successor], ~successor, successor)
    reward_of[s, a, column] = reward[s, a, successor]
    probability[s, a, column] = transition[s, a, successor]
    chances = _cumulative(probability)
    more = [(0, 0), (0, 0), (0, chances.shape[-1] - shape[-1])]
    return np.pad(follows, more).reshape(-1), np.pad(reward_of, more).reshape(-1), chances.reshape(-1)


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Cumulative probabilities `[..., 2^m]`, above 1 from the last successor on, so that no draw goes past it."""
    later = np.flip(np.flip(probability, -1).cumsum(-1), -1) - probability
    chances = np.where(later > 0, probability.cumsum(-1, dtype=np.float64), 2)
    width = 1 << (chances.shape[-1] - 1).bit_length()
    more = [(0, 0)] * (chances.ndim - 1) + [(0, width - chances.shape[-1])]
    return np.pad(chances, more, constant_values=2).astype(np.float32)
