"""Dynamic programming: values and policies of a Markov decision process whose tables are known."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from dlfx.ops.mdp import MDP, discounted, greedy, q_values, under
from dlfx.types import Array, unknown


class Solution(NamedTuple):
    """What dynamic programming found, and what it took.

    Attributes:
      values: `[S]`.
      policy: `[S]` int32, greedy with respect to the values.
      iterations: [] int32, sweeps over the states; improvements of the policy in policy iteration.
      backups: [] int32, updates of a single state's value.
      residual: [] the largest change of a value in the last sweep; the Bellman residual in prioritised sweeping.
    """

    values: Array
    policy: Array
    iterations: Array
    backups: Array
    residual: Array


def synchronous(mdp: MDP, *, tolerance: float = 1e-5, limit: int = 10_000) -> Solution:
    """Value iteration, all states at once from the values before: `v <- max_a r(s, a) + gamma sum_s' P(s' | s, a) v`.

    Args:
      mdp: the process.
      tolerance: it stops once no value changes by more in a sweep. v is then within
        `tolerance * gamma / (1 - gamma)` of the optimum. float32 cannot resolve less than 1e-7 of the largest value.
      limit: it stops after so many sweeps anyway; `residual` then exceeds `tolerance`.

    Source: Sutton and Barto 2018, equation 4.10.
    """
    reward, transition = discounted(mdp)

    def sweep(values: Array) -> Array:
        return (reward + transition @ values).max(-1)

    return _sweeps(mdp, sweep, tolerance, limit)


def in_place(mdp: MDP, *, tolerance: float = 1e-5, limit: int = 10_000) -> Solution:
    """Value iteration, one state after the other from the newest values (Gauss-Seidel). As `synchronous` otherwise.

    Source: Sutton and Barto 2018, section 4.5.
    """
    reward, transition = discounted(mdp)

    def sweep(values: Array) -> Array:
        def backup(state: Array, values: Array) -> Array:
            return values.at[state].set((reward[state] + transition[state] @ values).max())

        return lax.fori_loop(0, len(values), backup, values)

    return _sweeps(mdp, sweep, tolerance, limit)


def prioritised(mdp: MDP, *, tolerance: float = 1e-5, limit: int = 1_000_000) -> Solution:
    """Value iteration, always of the state with the largest Bellman residual `|max_a q(s, a) - v(s)|`.

    The residuals are kept up to date exactly: a change d of v(s') changes every q(s, a) by `gamma P(s' | s, a) d`.

    Args:
      mdp: the process.
      tolerance: it stops once no residual is larger.
      limit: it stops after so many backups anyway.

    Source: Moore and Atkeson 1993, Prioritized Sweeping; Sutton and Barto 2018, section 8.4.
    """
    reward, transition = discounted(mdp)
    into = jnp.moveaxis(transition, 2, 0)  # [S', S, A]

    def unsettled(carry: tuple[Array, Array, Array]) -> Array:
        values, q, backups = carry
        return (jnp.abs(q.max(-1) - values).max() > tolerance) & (backups < limit)

    def backup(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, q, backups = carry
        best = q.max(-1)
        state = jnp.abs(best - values).argmax()
        change = best[state] - values[state]
        return values.at[state].set(best[state]), q + into[state] * change, backups + 1

    values, _, backups = lax.while_loop(unsettled, backup, (jnp.zeros(len(reward)), reward, jnp.int32(0)))
    q = reward + transition @ values  # afresh, without the rounding of many small changes
    return Solution(values, greedy(q), backups, backups, jnp.abs(q.max(-1) - values).max())


VALUE_ITERATION: dict[str, Callable[..., Solution]] = {
    "synchronous": synchronous,
    "in_place": in_place,
    "prioritised": prioritised,
}


def evaluate(mdp: MDP, policy: Array, *, sweep: str = "synchronous", **stop: float) -> Solution:
    """Iterative policy evaluation: value iteration where there is nothing to choose. `policy` of the result is 0.

    `v(s) <- sum_a pi(a | s) (r(s, a) + gamma sum_s' P(s' | s, a) v(s'))`

    Args:
      mdp: the process.
      policy: `[S, A]` probabilities, or `[S]` integers, an action for every state.
      sweep: a name in `VALUE_ITERATION`.
      **stop: `tolerance` and `limit`.

    Raises:
      UserError: if there is no such sweep.

    Source: Sutton and Barto 2018, equation 4.5.
    """
    if sweep not in VALUE_ITERATION:
        raise unknown("sweep", sweep, VALUE_ITERATION)
    return VALUE_ITERATION[sweep](under(mdp, policy), **stop)


def policy_iteration(
    mdp: MDP, policy: Array | None = None, *, tolerance: float = 1e-5, limit: int = 100, sweeps: int = 10_000
) -> Solution:
    """Policy iteration: evaluate, then in every state take a better action where there is one, until nowhere.

    An action is changed only for one that is better by more than rounding makes it, 1e-6 of the largest value, so
    that equally good policies do not alternate for ever.

    Args:
      mdp: the process.
      policy: `[S]` int32 to begin with; action 0 everywhere if None.
      tolerance: of the evaluation, which starts from the values of the policy before.
      limit: the largest number of rounds of evaluation and improvement.
      sweeps: the largest number of sweeps of an evaluation. Few sweeps make modified policy iteration.

    Returns:
      The policy and its values; if it stopped at the limit, the values of the policy before. `iterations` counts the
      rounds that changed the policy.

    Source: Sutton and Barto 2018, section 4.3; Puterman and Shin 1978 for few sweeps.
    """
    reward, transition = discounted(mdp)
    states = len(reward)
    first = jnp.zeros(states, jnp.int32) if policy is None else jnp.asarray(policy, jnp.int32)

    def unstable(carry: tuple[Solution, Array, Array]) -> Array:
        return carry[1] & (carry[2] < limit)

    def improve(carry: tuple[Solution, Array, Array]) -> tuple[Solution, Array, Array]:
        before, _, rounds = carry
        chosen = before.policy[:, None]
        chosen_reward = jnp.take_along_axis(reward, chosen, 1)[:, 0]
        chosen_transition = jnp.take_along_axis(transition, chosen[..., None], 1)[:, 0]
        values, done, residual = _until_settled(
            lambda v: chosen_reward + chosen_transition @ v, before.values, tolerance, sweeps
        )
        q = reward + transition @ values
        largest = jnp.abs(values).max()
        better = q.max(-1) > jnp.take_along_axis(q, chosen, 1)[:, 0] + 1e-6 * largest
        changed = better.any()
        after = Solution(
            values,
            jnp.where(better, greedy(q), before.policy),
            before.iterations + changed,
            before.backups + done * (states - mdp.terminal.sum(dtype=jnp.int32)),
            residual,
        )
        # A policy that lasts proves nothing until its values have settled, as far as float32 lets them.
        return after, changed | (residual > jnp.maximum(tolerance, 1e-6 * largest)), rounds + 1

    nothing = Solution(jnp.zeros(states), first, jnp.int32(0), jnp.int32(0), jnp.float32(jnp.inf))
    return lax.while_loop(unstable, improve, (nothing, jnp.bool_(True), jnp.int32(0)))[0]


def finite_horizon(mdp: MDP, horizon: int) -> tuple[Array, Array]:
    """The best that can be had within a number of steps, by backward induction.

    `v_0 = 0`, `v_n(s) = max_a r(s, a) + gamma sum_s' P(s' | s, a) v_{n-1}(s')`

    For the values of a policy within so many steps give `under(mdp, policy)`. With a reward of 1 for success and
    gamma 1, they are probabilities of success.

    Args:
      mdp: the process.
      horizon: how many steps.

    Returns:
      Values `[horizon + 1, S]` and policy `[horizon, S]` int32: row n of the values is for n steps to go, and row n of
      the policy is the action with n + 1 steps to go.

    Source: Puterman 1994, Markov Decision Processes, section 4.5.
    """
    reward, transition = discounted(mdp)

    def backup(values: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        q = reward + transition @ values
        return q.max(-1), (q.max(-1), greedy(q))

    none = jnp.zeros(len(reward))
    _, (values, policy) = lax.scan(backup, none, None, horizon)
    return jnp.concatenate([none[None], values]), policy


def _sweeps(mdp: MDP, sweep: Callable[[Array], Array], tolerance: float, limit: int) -> Solution:
    terminal = jnp.asarray(mdp.terminal)
    values, done, residual = _until_settled(sweep, jnp.zeros(len(terminal)), tolerance, limit)
    backups = done * (~terminal).sum(dtype=jnp.int32)
    return Solution(values, greedy(q_values(mdp, values)), done, backups, residual)


def _until_settled(
    sweep: Callable[[Array], Array], values: Array, tolerance: float, limit: int
) -> tuple[Array, Array, Array]:
    """Values, number of sweeps and the largest change in the last one."""

    def unsettled(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[2] > tolerance) & (carry[1] < limit)

    def once(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        after = sweep(carry[0])
        return after, carry[1] + 1, jnp.abs(after - carry[0]).max()

    return lax.while_loop(unsettled, once, (values, jnp.int32(0), jnp.float32(jnp.inf)))
