"""The loop of transitions: the textbook's order, ends of episodes, the books it keeps, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs import gridworlds
from dlfx.envs.tabular import environment
from dlfx.learners.tabular import policies, schedules
from dlfx.learners.tabular.interaction import Rule, State, Transition, interaction
from dlfx.learners.tabular.n_step_td import n_step_td
from dlfx.learners.tabular.q_learning import q_learning
from dlfx.learners.tabular.sarsa import sarsa
from dlfx.learners.tabular.sweeps import Memory, sweeps
from dlfx.learners.tabular.td_lambda import td_lambda
from dlfx.learners.tabular.td_zero import td_zero
from dlfx.types import UserError

STEPS = 300
WALK = environment("walk", gridworlds.random_walk(), max_steps=7)
CLIFF = environment("cliff", gridworlds.cliff(), max_steps=30)
SOFT = policies.epsilon_greedy(schedules.constant(0.2))


def recorder(rule: Rule) -> Rule:
    """The rule, with every transition and the values after it kept in its memory."""

    def init(states, actions, value):
        memory = rule.init(states, actions, value)
        x = Transition(
            *(jnp.zeros((), kind) for kind in (jnp.int32, jnp.int32, float, float, jnp.int32, bool, jnp.int32)),
            jnp.zeros(actions), jnp.float32(0), jnp.float32(0), jnp.uint32(0),
        )  # fmt: skip
        kept = jax.tree.map(lambda leaf: jnp.zeros((STEPS, *leaf.shape), leaf.dtype), (x, rule.values(memory)))
        return memory, kept, jnp.int32(0)

    def update(memory, transition):
        memory, kept, t = memory
        memory, error = rule.update(memory, transition)
        row = transition._replace(key=jax.random.bits(transition.key)), rule.values(memory)
        return (memory, jax.tree.map(lambda all, one: all.at[t].set(one), kept, row), t + 1), error

    act = rule.action_values and (lambda memory, state: rule.action_values(memory[0], state))
    return Rule(init, update, lambda memory: rule.values(memory[0]), act, rule.on_policy)


def run(learner, steps, keys):
    def one(key):
        return jax.lax.scan(learner.step, learner.init(key, ()), (), steps)

    return jax.jit(jax.vmap(one))(keys)


def keys(count):
    return jax.vmap(jax.random.key)(jnp.arange(count))


@pytest.fixture(scope="module")
def recorded():
    found = {}
    for name, rule in (("sarsa", sarsa()), ("q_learning", q_learning())):
        learner = interaction(CLIFF, recorder(rule), SOFT, gamma=0.9, step_size=schedules.by_visits(0.6), unroll=50)
        state, metrics = run(learner, STEPS // 50, keys(1))
        found[name] = jax.tree.map(lambda x: np.asarray(x)[0], (state.memory[1], metrics))
    return found


@pytest.mark.parametrize("name", ["sarsa", "q_learning"])
def test_transitions_follow_one_another(recorded, name):
    (x, _), _ = recorded[name]
    within = ~x.over[:-1]
    np.testing.assert_array_equal(x.state[1:][within], x.successor[:-1][within])
    assert (x.state[1:][~within] == 36).all() and (~within).sum() > 5
    ended = x.discount == 0
    np.testing.assert_array_equal(x.successor[ended], 47)
    assert x.over[ended].all() and (x.over & ~ended).sum() > 2  # both kinds of end; a truncated one is bootstrapped
    assert set(np.unique(x.discount)) <= {np.float32(0), np.float32(0.9)}
    assert len(np.unique(x.key)) == STEPS


def test_an_on_policy_rule_takes_the_action_that_its_target_was_of(recorded):
    (x, _), _ = recorded["sarsa"]
    within = ~x.over[:-1]
    np.testing.assert_array_equal(x.action[1:][within], x.next_action[:-1][within])


def test_the_first_action_of_an_episode_is_for_its_first_state():
    """Up at the start, right elsewhere: an episode that was cut elsewhere is followed by one that begins upward."""
    right_but_up = np.eye(4)[np.where(np.arange(48) == 36, 0, 1)]
    for rule in (sarsa(), q_learning()):
        learner = interaction(
            CLIFF,
            recorder(rule),
            policies.given(right_but_up),
            gamma=0.9,
            step_size=schedules.constant(0.5),
            unroll=STEPS,
        )
        x, _ = run(learner, 1, keys(1))[0].memory[1]
        assert x.over.sum() > 5
        np.testing.assert_array_equal(x.action, np.where(np.asarray(x.state) == 36, 0, 1))


def test_an_off_policy_rule_chooses_after_its_update(recorded):
    (x, _), _ = recorded["q_learning"]
    within = ~x.over[:-1]
    assert (x.action[1:][within] != x.next_action[:-1][within]).any()


def test_the_policy_at_the_successor_is_that_of_the_values_before_the_update(recorded):
    for name in ("sarsa", "q_learning"):
        (x, values), _ = recorded[name]
        for t in range(1, STEPS):
            row = values[t - 1][x.successor[t]]
            best = row == row.max()
            np.testing.assert_allclose(x.next_policy[t], 0.05 + 0.8 * best / best.sum(), rtol=1e-5)


def test_step_sizes_by_visits(recorded):
    (x, _), _ = recorded["sarsa"]
    visits = {}
    for state, action, alpha in zip(x.state, x.action, x.step_size, strict=True):
        visits[state, action] = visits.get((state, action), 0) + 1
        np.testing.assert_allclose(alpha, visits[state, action] ** -0.6, rtol=1e-5)


def test_the_books(recorded):
    for name in ("sarsa", "q_learning"):
        (x, _), metrics = recorded[name]
        gained, taken, last = 0.0, 0, (0.0, 0)
        for call in range(STEPS // 50):
            ended = []
            for t in range(50 * call, 50 * call + 50):
                gained, taken = gained + x.reward[t], taken + 1
                if x.over[t]:
                    ended.append((gained, taken))
                    gained, taken = 0.0, 0
            returns, lengths = np.mean(ended or [last], 0)
            last = ended[-1] if ended else last
            np.testing.assert_allclose(metrics["return"][call], returns, rtol=1e-5)
            np.testing.assert_allclose(metrics["length"][call], lengths, rtol=1e-5)
            assert metrics["episodes"][call] == len(ended)


def test_before_the_first_end_the_return_is_0_and_after_it_that_of_the_last_episode():
    learner = interaction(WALK, td_zero(), SOFT, gamma=1.0, step_size=schedules.constant(0.1), unroll=1)
    _, metrics = run(learner, 60, keys(1))
    episodes, lengths = np.asarray(metrics["episodes"])[0], np.asarray(metrics["length"])[0]
    first = int(np.argmax(episodes))
    assert (lengths[:first] == 0).all() and lengths[first] == first + 1
    np.testing.assert_array_equal(lengths[1:][episodes[1:] == 0], lengths[:-1][episodes[1:] == 0])


def test_a_population_is_its_members_and_repeats():
    learner = interaction(CLIFF, q_learning(), SOFT, gamma=1.0, step_size=schedules.constant(0.5), unroll=40)
    together, _ = run(learner, 5, keys(3))
    again, _ = run(learner, 5, keys(3))
    np.testing.assert_array_equal(together.memory, again.memory)
    assert (np.asarray(together.memory[0]) != np.asarray(together.memory[1])).any()
    alone = jax.jit(lambda key: jax.lax.scan(learner.step, learner.init(key, ()), (), 5))
    for i in range(3):
        state, _ = alone(keys(3)[i])
        np.testing.assert_allclose(state.memory, together.memory[i], rtol=1e-6)
        assert isinstance(state, State) and state.step == 5


def test_td_zero_finds_the_values_of_the_random_walk():
    env = environment("walk", gridworlds.random_walk())
    policy = policies.given(np.full((7, 2), 0.5))
    learner = interaction(
        env, td_zero(), policy, gamma=1.0, step_size=schedules.by_visits(0.8), initial_value=0.5, unroll=500
    )
    state, _ = run(learner, 10, keys(64))
    np.testing.assert_allclose(np.asarray(state.memory).mean(0)[1:-1], np.arange(1, 6) / 6, atol=0.03)


@pytest.mark.parametrize("rule", [n_step_td(3), td_lambda(0.8)], ids=["n-step", "lambda"])
def test_truncation_does_not_bias_the_values(rule):
    """Cut after 7 steps the walk still has its values, as each cut is bootstrapped; ended there it would have less."""
    policy = policies.given(np.full((7, 2), 0.5))
    learner = interaction(WALK, rule, policy, gamma=1.0, step_size=schedules.by_visits(0.7), unroll=500)
    state, _ = run(learner, 20, keys(32))
    values = np.asarray(jax.vmap(rule.values)(state.memory)).mean(0)
    np.testing.assert_allclose(values[1:-1], np.arange(1, 6) / 6, atol=0.05)


def test_q_learning_is_off_policy():
    """From wholly random behaviour it finds the values of the best policy; SARSA finds those of the behaviour."""
    mdp = gridworlds.random_walk(3)
    env, chance = environment("walk", mdp), policies.epsilon_greedy(schedules.constant(1.0))
    best, behaviour = 0.9 ** np.array([2, 1, 0]), None
    for rule in (q_learning(), sarsa()):
        learner = interaction(env, rule, chance, gamma=0.9, step_size=schedules.by_visits(0.7), unroll=500)
        state, _ = run(learner, 20, keys(16))
        q = np.asarray(state.memory).mean(0)[1:-1]
        if rule.on_policy:
            p = np.array([[0, 0.45, 0], [0.45, 0, 0.45], [0, 0.45, 0]])
            behaviour = np.linalg.solve(np.eye(3) - p, [0, 0, 0.5])
            np.testing.assert_allclose(q.mean(1), behaviour, atol=0.04)
        else:
            np.testing.assert_allclose(q[:, 1], best, atol=0.02)


def test_optimistic_starts_explore():
    """A greedy policy tries both actions in every state if their values start too high, and never again otherwise."""
    env = environment("walk", gridworlds.random_walk(5, left=0.5))
    tried = []
    for value in (2.0, 0.0):
        rule = recorder(q_learning())
        learner = interaction(
            env,
            rule,
            policies.greedy(),
            gamma=0.9,
            step_size=schedules.constant(0.5),
            initial_value=value,
            unroll=STEPS,
        )
        (x, _) = run(learner, 1, keys(1))[0].memory[1]
        tried.append(len(set(zip(np.asarray(x.state)[0, -100:], np.asarray(x.action)[0, -100:], strict=True))))
        everything = set(zip(np.asarray(x.state)[0], np.asarray(x.action)[0], strict=True))
        assert (len(everything) == 10) == (value == 2.0)
    assert tried[1] <= 5


def test_sweeps_count_and_tell_the_change():
    learner = sweeps(lambda memory: Memory(memory.values + 2.0, memory.policy + 1), 3)
    state, metrics = jax.lax.scan(learner.step, learner.init(jax.random.key(0), ()), (), 4)
    assert (state.memory.values == 8).all() and state.step == 4 and (metrics["change"] == 2).all()


def test_mistakes():
    def make(env=WALK, gamma=0.9):
        return interaction(env, td_zero(), SOFT, gamma=gamma, step_size=schedules.constant(0.1))

    with pytest.raises(UserError, match=r"gamma=1.1 .* between 0 and 1"):
        make(gamma=1.1)
    with pytest.raises(UserError, match="pole does not give state numbers"):
        make(env=WALK._replace(name="pole", num_states=0))
