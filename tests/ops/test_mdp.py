"""Tables of a process: what is refused, and the values of a policy against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.mdp import (
    MDP,
    best_actions,
    build,
    check,
    discounted,
    expected_reward,
    greedy,
    policy_values,
    q_values,
    under,
    uniform,
)
from dlfx.types import UserError

S, A = 6, 3


@pytest.fixture
def mdp():
    """Random, with state 4 terminal and its rows full of NaN, as they must never be used."""
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, S))
    transition[4], reward[4] = np.nan, np.nan
    start = np.array([0.5, 0.25, 0.25, 0, 0, 0])
    return build(transition, reward, 0.8, start, np.arange(S) == 4)


@pytest.fixture
def policy():
    return np.random.default_rng(1).dirichlet(np.ones(A), S).astype(np.float32)


def loops(mdp: MDP, policy):
    """P_pi, r_pi and r(s, a) by their definitions."""
    chain, gained, reward = np.zeros((S, S)), np.zeros(S), np.zeros((S, A))
    for s in range(S):
        if mdp.terminal[s]:
            continue
        for a in range(A):
            for t in range(S):
                chain[s, t] += float(policy[s, a]) * mdp.transition[s, a, t]
                reward[s, a] += float(mdp.transition[s, a, t]) * mdp.reward[s, a, t]
            gained[s] += policy[s, a] * reward[s, a]
    return chain, gained, reward


def test_values_rewards_and_the_chain_of_a_policy_are_the_definitions(mdp, policy):
    chain, gained, reward = loops(mdp, policy)
    values = np.linalg.solve(np.eye(S) - 0.8 * chain, gained)
    np.testing.assert_allclose(expected_reward(mdp), reward, atol=1e-6)
    np.testing.assert_allclose(jax.jit(policy_values)(mdp, policy), values, atol=1e-5)
    assert policy_values(mdp, policy)[4] == 0
    np.testing.assert_allclose(discounted(under(mdp, policy))[1][:, 0], 0.8 * chain, atol=1e-6)
    np.testing.assert_allclose(discounted(under(mdp, policy))[0][:, 0], gained, atol=1e-6)
    np.testing.assert_allclose((np.asarray(q_values(mdp, values)) * policy).sum(-1), values, atol=1e-5)


def test_a_policy_of_integers_is_one_of_certainties(mdp):
    chosen = np.array([0, 1, 2, 2, 0, 1])
    np.testing.assert_array_equal(policy_values(mdp, chosen), policy_values(mdp, np.eye(A, dtype=np.float32)[chosen]))


def test_q_values_take_the_value_of_a_terminal_state_for_zero(mdp):
    values = np.arange(S, dtype=np.float32)
    q = q_values(mdp, values)
    np.testing.assert_array_equal(q, q_values(mdp, np.where(mdp.terminal, np.nan, values)))
    np.testing.assert_array_equal(q[4], 0)
    by_hand = sum(mdp.transition[2, 1, t] * (mdp.reward[2, 1, t] + 0.8 * t * (t != 4)) for t in range(S))
    np.testing.assert_allclose(q[2, 1], by_hand, rtol=1e-5)


def test_greedy_takes_the_first_of_the_best_actions_and_best_actions_all_of_them():
    q = jnp.array([[1.0, 2.0, 2.0], [3.0, 0.0, 3.0 - 1e-6]])
    np.testing.assert_array_equal(greedy(q), [1, 0])
    assert greedy(q).dtype == jnp.int32
    np.testing.assert_array_equal(best_actions(q), [[False, True, True], [True, False, True]])


def test_values_under_vmap_over_gamma(mdp, policy):
    gammas = jnp.array([0.0, 0.5, 0.9])
    together = jax.vmap(lambda gamma: policy_values(mdp._replace(gamma=gamma), policy))(gammas)
    for gamma, values in zip(gammas, together, strict=True):
        np.testing.assert_allclose(values, policy_values(mdp._replace(gamma=gamma), policy), rtol=1e-5)
    np.testing.assert_allclose(together[0], loops(mdp, policy)[1], atol=1e-6)


def test_a_policy_that_never_ends_has_no_values_without_discount():
    """Action 0 stays, action 1 goes to the terminal state."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1
    mdp = build(transition, np.ones((2, 2, 2)), 1.0, np.array([1, 0]), np.array([False, True]))
    with pytest.raises(UserError, match="from state 0 it never reaches a terminal state"):
        policy_values(mdp, np.array([0, 0]))
    np.testing.assert_allclose(policy_values(mdp, np.array([1, 0])), [1, 0])
    np.testing.assert_allclose(policy_values(mdp, uniform(mdp)), [2, 0], rtol=1e-6)
    np.testing.assert_allclose(policy_values(mdp._replace(gamma=np.float32(0.75)), np.array([0, 0])), [4, 0], rtol=1e-6)


def _with(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m._replace(transition=m.transition[0]), r"transition must be \[S, A, S\], not \[3, 6\]"),
        (lambda m: m._replace(reward=m.reward[:, :1]), r"reward must be \[6, 3, 6\].*not \[6, 1, 6\]"),
        (lambda m: m._replace(start=m.start[:5]), r"start must be \[6\].*not \[5\]"),
        (lambda m: m._replace(terminal=m.terminal.astype(int)), "terminal must be bool, not int64"),
        (lambda m: m._replace(gamma=np.float32(1.5)), r"gamma must be in \[0, 1\], not 1.5"),
        (lambda m: m._replace(gamma=np.float32(np.nan)), r"gamma must be in \[0, 1\], not nan"),
        (lambda m: m._replace(gamma=np.ones(2)), r"gamma must be \[\]"),
        (lambda m: m._replace(transition=m.transition * 1.01), "after state 0 and action 0 sum to 1.01, not 1"),
        (lambda m: m._replace(transition=_with(m.transition, (3, 2, 1), 9)), "after state 3 and action 2 sum to 9"),
        (
            lambda m: m._replace(transition=_with(m.transition, (3, 2, 1), -1)),
            "state 1 after state 3 and action 2 is neg",
        ),
        (lambda m: m._replace(transition=_with(m.transition, (3, 2, 1), np.nan)), "state 3 and action 2 is not finite"),
        (lambda m: m._replace(reward=_with(m.reward, (3, 2, 1), np.inf)), "state 3 by action 2 to state 1 is inf"),
        (lambda m: m._replace(start=m.start / 2), "start must be probabilities that sum to 1; they sum to 0.5"),
        (lambda m: m._replace(start=_with(m.start, slice(0, 2), [1, -0.25])), "the least is -0.25"),
        (lambda m: m._replace(start=np.eye(S)[4]), "no episode can begin in state 4: it is terminal"),
    ],
)
def test_what_is_no_process_is_refused_in_one_line(mdp, change, message):
    with pytest.raises(UserError, match=message) as error:
        check(change(mdp))
    assert "\n" not in str(error.value)


def test_a_process_passes_the_check_unchanged_in_either_precision(mdp):
    assert check(mdp) is mdp
    double = mdp._replace(transition=np.float64(mdp.transition), gamma=np.float64(0.8))
    assert check(double) is double
    assert all(table.dtype == np.float32 for table in mdp[:4])
