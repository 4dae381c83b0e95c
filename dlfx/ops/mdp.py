"""Markov decision processes as tables, and what makes one valid."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array, UserError

Table = Array | np.ndarray
TOLERANCE = 1e-4  # of a sum of float32 probabilities


class MDP(NamedTuple):
    """A finite Markov decision process (S, A, P, R, gamma) with its start distribution and terminal states.

    The study notes leave out gamma; without it the return of a continuing task is infinite.

    Attributes:
      transition: `[S, A, S]`, P(s' | s, a). The rows of terminal states are not used.
      reward: `[S, A, S]`, the expected reward of going from s by a to s'.
      gamma: [] the discount, in [0, 1].
      start: `[S]`, the probability of each state to begin in.
      terminal: `[S]` bool. An episode ends on entering one; its value is 0.
    """

    transition: Table
    reward: Table
    gamma: Table
    start: Table
    terminal: Table


def build(transition: np.ndarray, reward: np.ndarray, gamma: float, start: np.ndarray, terminal: np.ndarray) -> MDP:
    """A checked process of NumPy tables in float32, from tables of any precision. See `MDP` and `check`."""
    transition, reward, start = (np.asarray(x, np.float32) for x in (transition, reward, start))
    return check(MDP(transition, reward, np.asarray(gamma, np.float32), start, np.asarray(terminal)))


def check(mdp: MDP) -> MDP:
    """The same process, once it is known to be one. On concrete arrays, before anything is compiled.

    `sum_s' P(s' | s, a) = 1` for every s that is not terminal and every a; `P >= 0`; `0 <= gamma <= 1`;
    `sum_s start(s) = 1`.

    Args:
      mdp: tables as NumPy or JAX arrays, float32 or float64.

    Returns:
      `mdp` itself.

    Raises:
      UserError: naming the first state and action that is wrong, and what was found there.

    Source: Sutton and Barto 2018, equation 3.3.
    """
    transition, reward, gamma, start, terminal = (np.asarray(x) for x in mdp)
    if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or 0 in transition.shape:
        raise UserError(f"transition must be [S, A, S], not {list(transition.shape)}")
    states, actions, _ = transition.shape
    shapes = {"reward": (reward, transition.shape), "gamma": (gamma, ()), "start": (start, (states,))}
    shapes["terminal"] = (terminal, (states,))
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise UserError(
                f"{name} must be {list(shape)} with {states} states and {actions} actions, not {list(array.shape)}"
            )
    if terminal.dtype != np.bool_:
        raise UserError(f"terminal must be bool, not {terminal.dtype}")
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma must be in [0, 1], not {gamma:g}")
    used = np.where(terminal[:, None, None], 0, transition)
    for wrong, what in ((used < 0, "negative"), (~np.isfinite(used), "not finite")):
        if wrong.any():
            s, a, t = np.argwhere(wrong)[0]
            raise UserError(f"the probability of state {t} after state {s} and action {a} is {what}: {used[s, a, t]:g}")
    sums = used.sum(-1, dtype=np.float64)
    wrong = ~terminal[:, None] & (np.abs(sums - 1) > TOLERANCE)
    if wrong.any():
        s, a = np.argwhere(wrong)[0]
        raise UserError(f"the probabilities after state {s} and action {a} sum to {sums[s, a]:g}, not 1")
    if not np.isfinite(np.where(used > 0, reward, 0)).all():
        s, a, t = np.argwhere(~np.isfinite(np.where(used > 0, reward, 0)))[0]
        raise UserError(f"the reward of going from state {s} by action {a} to state {t} is {reward[s, a, t]:g}")
    total = start.sum(dtype=np.float64)
    if not (start >= 0).all() or not abs(total - 1) <= TOLERANCE:
        raise UserError(
            f"start must be probabilities that sum to 1; they sum to {total:g}, the least is {start.min():g}"
        )
    if terminal[start > 0].any():
        raise UserError(f"no episode can begin in state {np.argmax(terminal & (start > 0))}: it is terminal")
    return mdp


def expected_reward(mdp: MDP) -> Array:
    """The reward of an action, `r(s, a) = sum_s' P(s' | s, a) R(s, a, s')`; 0 in terminal states.

    Returns:
      `[S, A]`.

    Source: Sutton and Barto 2018, equation 3.5.
    """
    reward = (jnp.asarray(mdp.transition) * mdp.reward).sum(-1)
    return jnp.where(jnp.asarray(mdp.terminal)[:, None], 0, reward)


def q_values(mdp: MDP, values: Array) -> Array:
    """Values of actions, `q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) v(s')`; 0 in terminal states.

    Args:
      mdp: the process.
      values: `[S]`; those of terminal states count as 0.

    Returns:
      `[S, A]`.

    Source: Sutton and Barto 2018, equation 4.6.
    """
    reward, transition = discounted(mdp)
    return reward + transition @ jnp.where(mdp.terminal, 0, values)


def greedy(q: Array) -> Array:
    """The first best action, `argmax_a q(s, a)`.

    Args:
      q: `[S, A]`.

    Returns:
      `[S]` int32.

    Source: Sutton and Barto 2018, equation 4.9.
    """
    return q.argmax(-1).astype(jnp.int32)


def best_actions(q: Array, tolerance: float = 1e-4) -> Array:
    """Every action that is best up to a tolerance, as `[S, A]` bool: what the arrows of a figure show."""
    return q >= q.max(-1, keepdims=True) - tolerance


def uniform(mdp: MDP) -> Array:
    """The policy that takes every action with the same probability, `[S, A]`."""
    states, actions, _ = mdp.transition.shape
    return jnp.full((states, actions), 1 / actions, jnp.float32)


def under(mdp: MDP, policy: Array) -> MDP:
    """The process with the choice taken out of it: one action, which does as the policy does.

    `P_pi(s' | s) = sum_a pi(a | s) P(s' | s, a)`, and R so that `r_pi(s) = sum_a pi(a | s) r(s, a)`

    Args:
      mdp: the process.
      policy: `[S, A]` probabilities, or `[S]` integers, an action for every state.

    Returns:
      A process of tables `[S, 1, S]`.

    Source: Puterman 1994, Markov Decision Processes, section 5.6.
    """
    policy, actions = jnp.asarray(policy), mdp.transition.shape[1]
    if jnp.issubdtype(policy.dtype, jnp.integer):
        policy = jax.nn.one_hot(policy, actions)
    transition = jnp.einsum("sa,sat->st", policy, mdp.transition)
    # The reward of the state, whatever follows: a mean over actions of R(s, a, s') would have to divide by P_pi.
    reward = (policy * expected_reward(mdp)).sum(-1, keepdims=True)
    return mdp._replace(transition=transition[:, None], reward=jnp.broadcast_to(reward, transition.shape)[:, None])


def policy_values(mdp: MDP, policy: Array) -> Array:
    """The values of a policy, exactly: the solution of `(I - gamma P_pi) v = r_pi`, with v = 0 in terminal states.

    Args:
      mdp: the process.
      policy: `[S, A]` probabilities, or `[S]` integers, an action for every state.

    Returns:
      `[S]`.

    Raises:
      UserError: if gamma is 1 and the policy never ends an episode from some state, so that the equations have no
        solution or many. Not seen under `jit`, where the values come out infinite or not a number.

    Source: Sutton and Barto 2018, equation 3.14 and section 4.1.
    """
    chain = under(mdp, policy)
    if not any(isinstance(x, jax.core.Tracer) for x in chain):
        _must_end(chain)
    reward, transition = discounted(chain)
    return jnp.linalg.solve(jnp.eye(len(transition)) - transition[:, 0], reward[:, 0])


def discounted(mdp: MDP) -> tuple[Array, Array]:
    """What a backup needs: r(s, a) and gamma P(s' | s, a), both 0 in terminal states, whose values thus stay 0.

    Returns:
      `[S, A]` and `[S, A, S]`.

    Source: Sutton and Barto 2018, equation 4.6.
    """
    transition = jnp.where(jnp.asarray(mdp.terminal)[:, None, None], 0, jnp.asarray(mdp.transition))
    return expected_reward(mdp), jnp.asarray(mdp.gamma) * transition


def _must_end(chain: MDP) -> None:
    """Raises unless gamma < 1 or a terminal state can be reached from every state."""
    transition, ends = np.asarray(chain.transition)[:, 0], np.asarray(chain.terminal)
    if float(chain.gamma) < 1:
        return
    while (more := ends | (transition[:, ends] > 0).any(-1)).sum() > ends.sum():
        ends = more
    if not ends.all():
        raise UserError(
            f"with gamma 1 this policy has no values: from state {np.argmin(ends)} it never reaches a terminal state; "
            "gamma must be below 1, or the policy must be able to end"
        )
