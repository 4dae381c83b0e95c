"""Dynamic programming against linear equations in NumPy, the textbook's figures, and each way against the others."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs import gridworlds
from dlfx.envs.toy_text import frozen_lake
from dlfx.ops.mdp import build, policy_values, q_values, under, uniform
from dlfx.ops.planning import VALUE_ITERATION, evaluate, finite_horizon, policy_iteration, synchronous
from dlfx.types import UserError


def random_mdp(seed=0, states=5, actions=3, gamma=0.9):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), (states, actions))
    reward = rng.normal(size=(states, actions, states))
    return build(transition, reward, gamma, np.eye(states)[0], np.arange(states) == states - 1)


def optimum(mdp):
    """The best values among all deterministic policies, each solved in double precision."""
    states, actions, _ = mdp.transition.shape
    live = ~mdp.terminal
    p, r = np.float64(mdp.transition), (np.float64(mdp.transition) * mdp.reward).sum(-1)
    best = np.full(states, -np.inf)
    for policy in itertools.product(range(actions), repeat=states - 1):
        chosen = np.array([*policy, 0])
        chain = p[np.arange(states), chosen] * live[:, None] * float(mdp.gamma)
        best = np.maximum(best, np.linalg.solve(np.eye(states) - chain, r[np.arange(states), chosen] * live))
    return best


@pytest.mark.parametrize("find", [*VALUE_ITERATION.values(), policy_iteration])
def test_the_optimum_is_the_best_of_all_policies(find):
    mdp = random_mdp()
    found = jax.jit(find)(mdp)
    np.testing.assert_allclose(found.values, optimum(mdp), atol=1e-4)
    np.testing.assert_allclose(policy_values(mdp, found.policy), optimum(mdp), atol=1e-4)
    assert found.residual < 2e-5 and found.policy.dtype == jnp.int32 and found.values[-1] == 0


@pytest.mark.parametrize("sweep", VALUE_ITERATION)
def test_evaluation_finds_the_solution_of_the_linear_equations(sweep):
    mdp, policy = random_mdp(), np.random.default_rng(3).dirichlet(np.ones(3), 5)
    found = evaluate(mdp, policy, sweep=sweep)
    p = np.einsum("sa,sat->st", policy, mdp.transition) * ~mdp.terminal[:, None]
    r = np.einsum("sa,sat,sat->s", policy, mdp.transition, mdp.reward) * ~mdp.terminal
    np.testing.assert_allclose(found.values, np.linalg.solve(np.eye(5) - 0.9 * p, r), atol=2e-4)


def test_an_unknown_sweep_is_refused():
    with pytest.raises(UserError, match="unknown sweep 'inplace'; did you mean in_place"):
        evaluate(random_mdp(), np.zeros(5, int), sweep="inplace")


def test_sweeps_and_backups_are_counted_and_limited():
    mdp = random_mdp()
    for name, find in VALUE_ITERATION.items():
        cut = find(mdp, limit=3)
        assert cut.iterations == 3 and cut.residual > 1e-3, name
        assert cut.backups == (3 if name == "prioritised" else 3 * 4)  # of four states that are not terminal
    # Three sweeps from zero are the three-step problem.
    np.testing.assert_allclose(synchronous(mdp, limit=3).values, finite_horizon(mdp, 3)[0][3], rtol=1e-6)
    assert evaluate(mdp, uniform(mdp), limit=2).iterations == 2


def test_the_residual_is_the_bellman_residual():
    mdp = random_mdp()
    cut = VALUE_ITERATION["prioritised"](mdp, limit=7)
    by_hand = np.abs(np.asarray(q_values(mdp, cut.values)).max(-1) - cut.values).max()
    np.testing.assert_allclose(cut.residual, by_hand, rtol=1e-6)
    before, after = synchronous(mdp, limit=4), synchronous(mdp, limit=5)
    np.testing.assert_allclose(after.residual, np.abs(after.values - before.values).max(), rtol=1e-4)


def test_an_in_place_sweep_uses_the_newest_values():
    """A corridor to the right end, solved by one sweep that starts at the goal; the second is the proof."""
    transition = np.zeros((6, 1, 6))
    for s in range(1, 6):
        transition[s, 0, s - 1] = 1
    mdp = build(transition, -np.ones_like(transition), 1.0, np.eye(6)[5], np.arange(6) == 0)
    found = {name: find(mdp) for name, find in VALUE_ITERATION.items()}
    for name, iterations in {"synchronous": 6, "in_place": 2}.items():
        np.testing.assert_array_equal(found[name].values, -np.arange(6.0))
        assert found[name].iterations == iterations


def test_prioritised_sweeping_needs_fewer_backups_in_a_maze():
    mdp = gridworlds.maze()
    sweeps, first = synchronous(mdp), VALUE_ITERATION["prioritised"](mdp)
    np.testing.assert_allclose(sweeps.values, first.values, atol=1e-5)
    assert first.backups == 46 and sweeps.backups > 10 * 46  # every free cell but the goal, exactly once


def test_vmap_over_gamma_is_one_after_the_other():
    mdp, gammas = random_mdp(), jnp.array([0.0, 0.5, 0.95])
    for find in (*VALUE_ITERATION.values(), policy_iteration):
        together = jax.jit(jax.vmap(lambda g, find=find: find(mdp._replace(gamma=g))))(gammas)
        for i, gamma in enumerate(gammas):
            alone = find(mdp._replace(gamma=gamma))
            np.testing.assert_allclose(together.values[i], alone.values, atol=1e-4)
            np.testing.assert_array_equal(together.policy[i], alone.policy)


def test_policy_iteration_improves_step_by_step_and_stops():
    mdp = random_mdp(seed=5, states=5)
    values = [policy_values(mdp, policy_iteration(mdp, limit=n).policy) for n in range(1, 5)]
    assert all((after >= before - 1e-5).all() for before, after in itertools.pairwise(values))
    found = policy_iteration(mdp)
    again = policy_iteration(mdp, found.policy)
    assert again.iterations == 0 and (again.policy == found.policy).all()
    np.testing.assert_allclose(policy_iteration(mdp, sweeps=2, limit=1000).values, found.values, atol=1e-3)


def test_ties_do_not_keep_policy_iteration_going():
    transition = np.full((3, 2, 3), 1 / 3)  # both actions are the same
    mdp = build(transition, np.ones_like(transition), 0.99, np.eye(3)[0], np.zeros(3, bool))
    found = policy_iteration(mdp, np.array([1, 0, 1]))
    assert found.iterations == 0 and (found.policy == np.array([1, 0, 1])).all()


def test_the_4x4_gridworld_of_the_book():
    mdp = gridworlds.gridworld4x4()
    published = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    np.testing.assert_allclose(policy_values(mdp, uniform(mdp)), published, atol=1e-3)
    np.testing.assert_allclose(evaluate(mdp, uniform(mdp), tolerance=1e-6).values, published, atol=1e-2)
    third = [0, -2.4, -2.9, -3.0, -2.4, -2.9, -3.0, -2.9, -2.9, -3.0, -2.9, -2.4, -3.0, -2.9, -2.4, 0]  # figure 4.1
    np.testing.assert_allclose(evaluate(mdp, uniform(mdp), limit=3).values, third, atol=0.07)
    np.testing.assert_array_equal(synchronous(mdp).values[:4], [0, -1, -2, -3])


def test_the_5x5_gridworld_of_the_book():
    mdp = gridworlds.gridworld5x5()
    random = [3.3, 8.8, 4.4, 5.3, 1.5, 1.5, 3.0, 2.3, 1.9, 0.5, 0.1, 0.7, 0.7, 0.4, -0.4]
    random += [-1.0, -0.4, -0.4, -0.6, -1.2, -1.9, -1.3, -1.2, -1.4, -2.0]
    best = [22.0, 24.4, 22.0, 19.4, 17.5, 19.8, 22.0, 19.8, 17.8, 16.0, 17.8, 19.8, 17.8, 16.0, 14.4]
    best += [16.0, 17.8, 16.0, 14.4, 13.0, 14.4, 16.0, 14.4, 13.0, 11.7]
    np.testing.assert_allclose(policy_values(mdp, uniform(mdp)), random, atol=0.051)
    np.testing.assert_allclose(synchronous(mdp).values, best, atol=0.051)


def test_frozen_lake_within_and_without_its_time_limit():
    mdp = frozen_lake()
    for gamma, value in ((0.99, 0.5420), (1.0, 0.8235)):
        found = synchronous(mdp._replace(gamma=np.float32(gamma)), tolerance=1e-7)
        np.testing.assert_allclose(found.values[0], value, atol=2e-4)
    for name, steps, success in (("4x4", 100, 0.74), ("8x8", 200, 0.91)):
        mdp = frozen_lake(name)._replace(gamma=np.float32(1))
        values, policy = jax.jit(finite_horizon, static_argnums=1)(mdp, steps)
        assert values.shape == (steps + 1, len(mdp.start)) and policy.shape == (steps, len(mdp.start))
        np.testing.assert_allclose(values[-1, 0], success, atol=0.006)


def test_a_finite_horizon_by_recursion():
    mdp = random_mdp(gamma=0.7)

    def best(state, steps):
        if steps == 0 or mdp.terminal[state]:
            return 0.0
        ahead = [best(t, steps - 1) for t in range(5)]
        return max(float(mdp.transition[state, a] @ (mdp.reward[state, a] + 0.7 * np.array(ahead))) for a in range(3))

    values, policy = finite_horizon(mdp, 4)
    np.testing.assert_allclose(values[4], [best(s, 4) for s in range(5)], atol=1e-5)
    # Row n of the policy is for n + 1 steps to go.
    np.testing.assert_array_equal(policy[2], q_values(mdp, values[2]).argmax(-1))
    chosen = np.array([0, 1, 2, 0, 0])
    random_chain, _ = finite_horizon(under(mdp, chosen), 200)
    np.testing.assert_allclose(random_chain[-1], policy_values(mdp, chosen), atol=1e-4)
