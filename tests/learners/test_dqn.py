"""Deep Q-learning against a re-implementation in NumPy, exact values of small tasks, and itself under vmap and jit."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.envs.episodes import episodic
from dlfx.envs.tabular import environment
from dlfx.envs.worlds import world
from dlfx.learners import dqn as agent
from dlfx.learners import replay as memory
from dlfx.models.reinforcement.q_network import QNetwork
from dlfx.models.reinforcement.torsos import MLP
from dlfx.ops import mdp as processes
from dlfx.ops import planning
from dlfx.types import UserError
from tests.compiling import quick

GAMMA = 0.9


def chain():
    """Five states in a row; off the left end there is 0.2, off the right end 1. An episode begins anywhere in it."""
    transition, reward = np.zeros((2, 7, 2, 7))
    for s in range(5):
        transition[s, 0, s - 1 if s else 5] = transition[s, 1, s + 1 if s < 4 else 6] = 1
    reward[0, 0, 5], reward[4, 1, 6] = 0.2, 1
    return processes.build(transition, reward, GAMMA, np.append(np.full(5, 0.2), [0, 0]), np.arange(7) > 4)


CHAIN = chain()
ENV = environment("chain", CHAIN, max_steps=12)
Q_STAR = np.asarray(processes.q_values(CHAIN, planning.synchronous(CHAIN).values))
BEST = Q_STAR.argmax(-1)


def table(env, outputs=1, **options):
    """A network with a weight for every state and action, and a bias for every action."""
    return QNetwork(MLP((), num_states=env.num_states), env.num_actions, outputs, **options)


def constant(value):
    return lambda env_steps: jnp.float32(value)


def train(learner, iterations, read):
    """What there is to read from the state after so many steps, and the metrics of all of them."""

    @quick
    def run(key):
        state, metrics = jax.lax.scan(lambda state, _: learner.step(state, ()), learner.init(key, ()), None, iterations)
        return read(state), metrics

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


# One step, written out.


class Mirror(NamedTuple):
    """What the re-implementation holds: a table of values and a bias, once more for targets, and the memory."""

    weights: list
    target: list
    replay: memory.Replay


@pytest.mark.parametrize(("double", "priority", "delta", "n"), [(False, 0.0, 0.0, 1), (True, 0.6, 0.1, 2)])
def test_iterations_are_those_of_a_plain_implementation(double, priority, delta, n):
    envs, unroll, updates, batch, starts, every, rate = 2, 3, 2, 8, 12, 3, 0.3
    schedule, beta = optax.linear_schedule(0.9, 0.1, 40), optax.linear_schedule(0.4, 1.0, 60)
    learner = agent.dqn(
        ENV, table(ENV), agent.expected_head(delta), optax.sgd(rate), epsilon=schedule, beta=beta, gamma=GAMMA,
        num_envs=envs, unroll=unroll, updates=updates, batch_size=batch, capacity=24, learning_starts=starts,
        target_every=every, n_step=n, double=double, priority=priority,
    )  # fmt: skip
    step, env_step = quick(learner.step), quick(jax.vmap(ENV.step))
    add = quick(memory.add)
    sample = quick(
        lambda key, replay, beta: memory.sample(key, replay, batch, envs, n=n, gamma=GAMMA, beta=beta),
    )
    state = quick(learner.init)(jax.random.key(3), ())

    def weights_of(params):
        return [np.array(params["params"]["values"][name], np.float64) for name in ("kernel", "bias")]

    def values(weights, states):
        return weights[0][states] + weights[1]

    mirror = Mirror(weights_of(state.params), weights_of(state.params), memory.empty(24, ENV.observation, priority > 0))
    env_state, observation = state.env, np.asarray(state.observation)
    so_far, finished, episodes = np.zeros(envs), np.zeros(envs), 0
    learned = 0
    for i in range(8):
        acting, learning = jax.random.split(jax.random.fold_in(state.key, i))
        epsilon, rows = float(schedule(6 * i)), []
        for key in jax.random.split(acting, unroll):
            chance_key, random_key, env_key, _ = jax.random.split(key, 4)
            explores = np.asarray(jax.random.uniform(chance_key, (envs,))) < epsilon
            anything = jax.random.randint(random_key, (envs,), 0, 2)
            action = np.where(explores, anything, values(mirror.weights, observation).argmax(-1))
            env_state, then = env_step(jax.random.split(env_key, envs), env_state, jnp.int32(action))
            ended = np.asarray(then.terminated | then.truncated)
            row = (observation, action, then.reward, then.successor, then.terminated, ended)
            rows.append(memory.Transition(*map(np.asarray, row)))
            observation = np.asarray(then.observation)
            so_far += np.asarray(then.reward)
            finished, episodes = np.where(ended, so_far, finished), episodes + ended.sum()
            so_far[ended] = 0
        mirror = mirror._replace(replay=add(mirror.replay, jax.tree.map(lambda *x: np.stack(x), *rows)))
        losses = []
        for key in jax.random.split(learning, updates) if 6 * (i + 1) >= starts else []:
            learned += 1
            drawn = jax.tree.map(np.asarray, sample(jax.random.split(key, 4)[0], mirror.replay, beta(6 * i)))
            after = values(mirror.target, drawn.successor)
            best = (values(mirror.weights, drawn.successor) if double else after).argmax(-1)
            target = drawn.reward + drawn.discount * after[np.arange(batch), best]
            error = target - values(mirror.weights, drawn.observation)[np.arange(batch), drawn.action]
            if delta:
                each = np.where(abs(error) < delta, error**2 / 2, delta * (abs(error) - delta / 2))
                slope = np.clip(error, -delta, delta)
            else:
                each, slope = error**2, 2 * error
            losses.append((drawn.weight * each).mean())
            for j in range(batch):
                change = rate * drawn.weight[j] * slope[j] / batch
                mirror.weights[0][drawn.observation[j], drawn.action[j]] += change
                mirror.weights[1][drawn.action[j]] += change
            if priority:
                kept = memory.reprioritize(mirror.replay, drawn.places, jnp.float32(error), priority)
                mirror = mirror._replace(replay=kept)
        if (i + 1) % every == 0:
            mirror = mirror._replace(target=[w.copy() for w in mirror.weights])
        state, metrics = step(state, ())
        for found, expected in ((state.params, mirror.weights), (state.target, mirror.target)):
            for x, y in zip(weights_of(found), expected, strict=True):
                np.testing.assert_allclose(x, y, atol=2e-6)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.replay, mirror.replay)
        assert metrics["loss"] == pytest.approx(np.mean(losses) if losses else 0, abs=1e-6)
        assert metrics["epsilon"] == pytest.approx(epsilon)
        assert metrics["episodes"] == episodes and metrics["return"] == pytest.approx(finished.mean())
        assert state.step == i + 1
    assert learned == 14 and episodes > 0
    # The copies are exact, and were made at the third and sixth iteration alone.
    assert any((x != y).any() for x, y in zip(weights_of(state.params), weights_of(state.target), strict=True))
    state, _ = step(state, ())
    jax.tree.map(np.testing.assert_array_equal, state.target, state.params)


def test_a_categorical_step_is_optax_s_on_the_loss_written_out():
    """One update of C51 with double Q-learning, its gradient in closed form: softmax - projected target."""
    optimizer = optax.adam(0.1)
    head, atoms = agent.categorical_head(0.0, 1.0, 6), np.linspace(0, 1, 6)
    learner = agent.dqn(
        ENV, table(ENV, 6), head, optimizer, epsilon=constant(1), gamma=GAMMA, num_envs=2, unroll=4, batch_size=16,
        capacity=16, learning_starts=0, target_every=100, double=True,
    )  # fmt: skip
    before = quick(learner.init)(jax.random.key(0), ())
    target = jax.tree.map(lambda x: x + 0.3 * np.random.default_rng(0).normal(size=x.shape), before.params)
    before = before._replace(target=jax.tree.map(jnp.float32, target))
    after, metrics = quick(learner.step)(before, ())
    learning = jax.random.split(jax.random.fold_in(before.key, 0))[1]
    draw = quick(lambda key, replay: memory.sample(key, replay, 16, 2, gamma=GAMMA))
    drawn = jax.tree.map(np.asarray, draw(jax.random.split(learning, 4)[0], after.replay))

    def probabilities(params, states):
        layer = params["params"]["values"]
        logits = np.float64(layer["kernel"])[states] + layer["bias"]
        powers = np.exp(logits.reshape(-1, 2, 6))
        return powers / powers.sum(-1, keepdims=True)

    online, loss = probabilities(before.params, drawn.observation), 0.0
    gradient = jax.tree.map(lambda x: np.zeros_like(x), before.params)
    layer = gradient["params"]["values"]
    for j in range(16):
        best = (probabilities(before.params, drawn.successor)[j] @ atoms).argmax()
        goal = np.zeros(6)
        for atom, p in zip(atoms, probabilities(before.target, drawn.successor)[j, best], strict=True):
            place = 5 * np.clip(drawn.reward[j] + drawn.discount[j] * atom, 0, 1)
            goal += p * np.clip(1 - abs(place - np.arange(6)), 0, 1)
        action = int(drawn.action[j])
        predicted = online[j, action]
        loss -= (goal * np.log(predicted)).sum() / 16
        part = slice(6 * action, 6 * action + 6)
        layer["kernel"][drawn.observation[j], part] += (predicted - goal) / 16
        layer["bias"][part] += (predicted - goal) / 16
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
    changes, _ = optimizer.update(gradient, before.opt_state, before.params)
    expected = optax.apply_updates(before.params, changes)
    # Adam's first step is the sign of the gradient: only where that is not rounding itself can it be compared.
    jax.tree.map(
        lambda x, y, g: np.testing.assert_allclose(x[abs(g) > 1e-5], y[abs(g) > 1e-5], atol=1e-4),
        after.params, expected, gradient,
    )  # fmt: skip


def test_exploration_is_as_frequent_as_epsilon_says():
    learner = agent.dqn(
        ENV, table(ENV), agent.expected_head(0.0), optax.sgd(0.0), epsilon=constant(0.3), num_envs=2000, unroll=3,
        batch_size=1, capacity=6000,
    )  # fmt: skip
    state, _ = quick(lambda key: learner.step(learner.init(key, ()), ()))(jax.random.key(0))
    rows, layer = state.replay.rows, state.params["params"]["values"]
    greedy = (layer["kernel"][rows.observation] + layer["bias"]).argmax(-1)
    frequency = float((rows.action == greedy).mean())
    assert abs(frequency - 0.85) < 5 * np.sqrt(0.85 * 0.15 / 6000)


def test_nothing_is_learned_before_the_first_whole_transition():
    """Even where learning starts at once: with n = 3 the first two rows have no third."""
    learner = agent.dqn(
        ENV, table(ENV), agent.expected_head(0.0), optax.sgd(0.5), epsilon=constant(1), num_envs=2, unroll=1,
        batch_size=4, capacity=16, learning_starts=0, n_step=3,
    )  # fmt: skip
    step, state = quick(learner.step), quick(learner.init)(jax.random.key(0), ())
    changed = []
    for _ in range(4):
        before = state
        state, metrics = step(state, ())
        same = jax.tree.map(lambda x, y: bool((x == y).all()), state.params, before.params)
        changed.append(not all(jax.tree.leaves(same)))
        assert (metrics["loss"] != 0) == changed[-1]
    assert changed == [False, False, True, True]


def test_a_memory_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="smaller than a batch of 32"):
        agent.dqn(ENV, table(ENV), agent.expected_head(0.0), optax.sgd(0.1), epsilon=constant(1), unroll=1, capacity=16)


# What it learns.


def one_state(max_steps, length):
    """Reward 1 for ever, cut after `max_steps`, or terminated after `length`; the observation never tells."""
    return episodic(
        "one", lambda key: (jnp.int32(0), jnp.int32(0)),
        lambda key, time, action: (time + 1, jnp.int32(0), jnp.float32(1), time + 1 == length),
        num_actions=1, render=lambda state: None, num_states=1, max_steps=max_steps,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("max_steps", "length", "n", "expected"),
    [
        (3, -1, 1, 1 / (1 - GAMMA)),  # time is up after every third step, and yet it is worth what never ends is
        (3, -1, 3, 1 / (1 - GAMMA)),
        (0, 3, 1, 1 / (1 - 2 / 3 * GAMMA)),  # of three steps, the last has nothing to follow
    ],
)
def test_the_value_goes_on_where_time_was_up_and_not_where_the_task_ended(max_steps, length, n, expected):
    env = one_state(max_steps, length)
    learner = agent.dqn(
        env, table(env), agent.expected_head(0.0), optax.sgd(0.02), epsilon=constant(0), gamma=GAMMA, num_envs=4,
        unroll=3, batch_size=48, capacity=48, learning_starts=48, target_every=5, n_step=n,
    )  # fmt: skip
    params, metrics = train(learner, 2500, lambda state: state.params)
    layer = params["params"]["values"]
    assert float(layer["kernel"][0, 0] + layer["bias"][0]) == pytest.approx(expected, rel=1e-3 if max_steps else 0.1)
    assert metrics["return"][-1] == 3


SOLVE = {"num_envs": 4, "unroll": 4, "batch_size": 32, "capacity": 64, "learning_starts": 64, "target_every": 10}
EXPECTED, CATEGORICAL = (agent.expected_head(1.0), 1), (agent.categorical_head(0.0, 1.0, 21), 21)
QUANTILE = (agent.quantile_head(0.05), 5)
ALWAYS, NEVER, FALLING = constant(1), constant(0), optax.linear_schedule(1.0, 0.0, 6000)
VARIANTS = {
    "dqn": (EXPECTED, {}, {"epsilon": ALWAYS}),
    "double_dueling_prioritised": (
        EXPECTED,
        {"dueling": True},
        {"epsilon": ALWAYS, "double": True, "priority": 0.6},
    ),
    "categorical": (CATEGORICAL, {}, {"epsilon": ALWAYS}),
    "quantile": (QUANTILE, {}, {"epsilon": ALWAYS}),
    "n_step": (EXPECTED, {}, {"epsilon": FALLING, "n_step": 3}),
    "noisy": (EXPECTED, {"noisy": True}, {"epsilon": NEVER}),
    "rainbow": (
        CATEGORICAL,
        {"dueling": True, "noisy": True},
        {"epsilon": NEVER, "double": True, "priority": 0.6, "n_step": 3},
    ),
}  # the table of all actions can only be expected where all are tried for ever


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_finds_the_values_of_a_chain(name):
    (head, outputs), parts, options = VARIANTS[name]
    network = table(ENV, outputs, **parts)
    falling = optax.linear_schedule(0.03, 0.0, 1500)
    learner = agent.dqn(ENV, network, head, optax.adam(falling), gamma=GAMMA, **SOLVE, **options)
    q, _ = train(learner, 1500, lambda state: head.values(network.apply(state.params, jnp.arange(5))))
    np.testing.assert_array_equal(q.argmax(-1), BEST[:5])
    if options["epsilon"] is ALWAYS:
        np.testing.assert_allclose(q, Q_STAR[:5], atol=0.04)
    else:
        np.testing.assert_allclose(q.max(-1), Q_STAR[:5].max(-1), atol=0.06)


def test_it_finds_the_way_along_the_cliff():
    cliff = world("cliff")
    best = planning.synchronous(cliff.mdp._replace(gamma=np.float32(GAMMA)))
    network, falling = table(cliff.environment), optax.linear_schedule(0.3, 0.0, 1500)
    learner = agent.dqn(
        cliff.environment, network, agent.expected_head(1.0), optax.adam(falling), epsilon=constant(0.2), gamma=GAMMA,
        num_envs=16, unroll=2, batch_size=128, capacity=4096, learning_starts=512, target_every=10, double=True,
    )  # fmt: skip
    q, _ = train(learner, 1500, lambda state: network.apply(state.params, jnp.arange(48))[..., 0])
    seen = [36, *range(36)]  # where there is no cliff, nor the goal
    np.testing.assert_allclose(q[seen].max(-1), best.values[jnp.array(seen)], atol=0.3)
    at, path = 36, []
    while at != 47 and len(path) < 20:
        at = int(cliff.mdp.transition[at, q[at].argmax()].argmax())
        path.append(at)
    assert path == [*range(24, 36), 47]


# Under JAX's transformations.


@functools.cache
def agent_of_many_parts():
    """What draws random numbers and keeps state, all at once."""
    return agent.dqn(
        ENV, table(ENV, noisy=True), agent.expected_head(1.0), optax.adam(0.02), epsilon=constant(0.2), double=True,
        num_envs=2, unroll=3, batch_size=8, capacity=12, learning_starts=12, target_every=3, n_step=2, priority=0.6,
    )  # fmt: skip


def after_twenty(transform, keys):
    """Twice: the state and the metrics after twenty steps."""
    learner = agent_of_many_parts()
    init, step = quick(transform(lambda key: learner.init(key, ()))), quick(transform(lambda s: learner.step(s, ())))
    for _ in range(2):
        state, told = init(keys), []
        for _ in range(20):
            state, metrics = step(state)
            told.append(metrics)
        yield state._replace(key=jax.random.key_data(state.key)), jax.tree.map(lambda *x: np.stack(x), *told)
    assert step._cache_size() == 1  # what comes out is of the types that went in


def test_it_compiles_once_repeats_to_the_bit_and_a_member_of_a_population_is_the_seed_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    alone, again = after_twenty(lambda f: f, keys[2])
    jax.tree.map(np.testing.assert_array_equal, alone, again)
    together, _ = after_twenty(jax.vmap, keys)
    member = jax.tree.map(lambda x: x[2], together[0]), {name: x[:, 2] for name, x in together[1].items()}
    np.testing.assert_array_equal(member[0].replay.rows.action, alone[0].replay.rows.action)
    # Priorities are of errors, small differences of values: rounding counts for more there.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-4), member, alone)
    rewards = np.asarray(together[0].replay.rows.reward)
    assert (rewards[0] != rewards[2]).any() and (rewards[1] != rewards[2]).any()
