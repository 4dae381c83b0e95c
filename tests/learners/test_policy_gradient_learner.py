"""REINFORCE, A2C and PPO: their first gradient written out from the trajectory, and what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.envs.tabular import environment
from dlfx.learners.policy_gradient import policy_gradient
from dlfx.models.reinforcement.actor_critic import ActorCritic
from dlfx.models.reinforcement.torsos import MLP
from dlfx.ops import mdp as processes
from dlfx.ops import planning
from dlfx.types import UserError
from tests.compiling import quick

GAMMA = 0.9
ALGORITHMS = {
    "reinforce": {"unroll": 12, "whole_episodes": True},
    "a2c": {"unroll": 6},
    "ppo": {"unroll": 16, "trace_decay": 0.95, "epochs": 3, "minibatches": 2, "clip": 0.2, "normalize": True},
}


def chain():
    """Four states in a row; off the left end there is 0.2, off the right end 1. An episode begins anywhere in it."""
    transition, reward = np.zeros((2, 6, 2, 6))
    for s in range(4):
        transition[s, 0, s - 1 if s else 4] = transition[s, 1, s + 1 if s < 3 else 5] = 1
    reward[0, 0, 4], reward[3, 1, 5] = 0.2, 1
    return processes.build(transition, reward, GAMMA, np.append(np.full(4, 0.25), [0, 0]), np.arange(6) > 3)


CHAIN = chain()
ENV = environment("chain", CHAIN, max_steps=4)


def table(env):
    return ActorCritic(MLP((), num_states=env.num_states), None, env.num_actions)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def log_softmax(x):
    return np.log(softmax(x))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_update_is_the_gradient_of_the_trajectory_written_out(name):
    """With the plain gradient of descent, one pass over one whole batch: returns by loops, derivatives by hand."""
    envs, rate, spread, weight_of_value = 3, 0.7, 0.05, 0.25
    options = ALGORITHMS[name] | {"epochs": 1, "minibatches": 1}
    unroll, decay, whole = options["unroll"], options.get("trace_decay", 1.0), name == "reinforce"
    learner = policy_gradient(
        ENV, table(ENV), optax.sgd(rate), gamma=GAMMA, num_envs=envs, value_weight=weight_of_value,
        entropy_weight=spread, **options,
    )  # fmt: skip
    state = quick(learner.init)(jax.random.key(1), ())
    values = np.random.default_rng(0).normal(size=(6, 1))  # so that bootstrapping shows
    layers = {
        "policy": {"kernel": np.random.default_rng(1).normal(size=(6, 2)), "bias": np.array([0.1, -0.2])},
        "value": {"kernel": values, "bias": np.array([0.3])},
    }
    state = state._replace(params={"params": jax.tree.map(jnp.float32, layers)})
    found, metrics = quick(learner.step)(state, ())

    # Acting, with the same keys.
    acting, _, beginning = jax.random.split(jax.random.fold_in(state.key, 0), 3)
    env_state, observation = state.env, state.observation
    if whole:
        env_state, observation = quick(jax.vmap(ENV.reset))(jax.random.split(beginning, envs))
    step, choose, rows = quick(jax.vmap(ENV.step)), quick(jax.random.categorical), []
    for key in jax.random.split(acting, unroll):
        choose_key, env_key = jax.random.split(key)
        at = np.asarray(observation)
        logits = layers["policy"]["kernel"][at] + layers["policy"]["bias"]
        action = np.int32(choose(choose_key, np.float32(logits)))
        env_state, then = step(jax.random.split(env_key, envs), env_state, action)
        observation = then.observation
        rows.append(jax.tree.map(np.asarray, (at, action, then)))

    def v(s):
        return values[s, 0] + 0.3

    counted = []  # (state, action, advantage, goal) of what the update is made from
    for e in range(envs):
        for t in range(unroll):
            if whole and any((then.terminated | then.truncated)[e] for _, _, then in rows[:t]):
                break
            advantage, factor = 0.0, 1.0
            for at, _, then in rows[t:]:  # the sum of TD errors, up to the end of the episode
                following = 0.0 if then.terminated[e] else GAMMA * v(then.successor[e])
                advantage += factor * (then.reward[e] + following - v(at[e]))
                factor *= GAMMA * decay
                if (then.terminated | then.truncated)[e]:
                    break
            counted.append((rows[t][0][e], rows[t][1][e], advantage, advantage + v(rows[t][0][e])))
    states, actions, advantages, goals = map(np.array, zip(*counted, strict=True))
    ends = np.array([[then.terminated, then.truncated] for _, _, then in rows]).sum((0, 2))
    assert (ends > 0).all() and (len(counted) < envs * unroll) == whole
    if name == "ppo":
        advantages = (advantages - advantages.mean()) / advantages.std()
    logits = layers["policy"]["kernel"][states] + layers["policy"]["bias"]
    pi, error = softmax(logits), v(states) - goals
    entropy = -(pi * log_softmax(logits)).sum(-1)
    slope = -advantages[:, None] * (np.eye(2)[actions] - pi)
    slope += spread * pi * (log_softmax(logits) + entropy[:, None])
    for layer, each in (("policy", slope), ("value", 2 * weight_of_value * error[:, None])):
        gradient = np.zeros_like(layers[layer]["kernel"])
        np.add.at(gradient, states, each / len(states))
        after = found.params["params"][layer]
        np.testing.assert_allclose(after["kernel"], layers[layer]["kernel"] - rate * gradient, atol=1e-5)
        np.testing.assert_allclose(after["bias"], layers[layer]["bias"] - rate * each.mean(0), atol=1e-5)
    assert metrics["entropy"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert metrics["value_loss"] == pytest.approx((error**2).mean(), rel=1e-4)
    # PPO's ratio is 1 as yet, so that its gain is the mean advantage, 0 once normalised.
    gain = (
        -advantages.mean() if name == "ppo" else -(advantages * log_softmax(logits)[range(len(states)), actions]).mean()
    )
    expected = gain + weight_of_value * (error**2).mean() - spread * entropy.mean()
    assert metrics["loss"] == pytest.approx(expected, abs=1e-5)
    returns, count = np.zeros(envs), 0
    for e in range(envs):
        so_far = 0.0
        for _, _, then in rows:
            so_far += then.reward[e]
            if (then.terminated | then.truncated)[e]:
                returns[e], so_far, count = so_far, 0.0, count + 1
    assert metrics["episodes"] == count and metrics["return"] == pytest.approx(returns.mean(), abs=1e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_they_find_the_way_and_the_values_of_a_chain(name):
    best = np.asarray(planning.synchronous(CHAIN).values)[:4]
    learner = policy_gradient(
        ENV, table(ENV), optax.adam(optax.linear_schedule(0.05, 0.0, 1500)), gamma=GAMMA, num_envs=8, **ALGORITHMS[name]
    )

    @quick
    def run(key):
        state, metrics = jax.lax.scan(lambda state, _: learner.step(state, ()), learner.init(key, ()), None, 600)
        return *table(ENV).apply(state.params, jnp.arange(4)), metrics

    logits, values, metrics = jax.tree.map(np.asarray, run(jax.random.key(0)))
    assert (logits.argmax(-1) == 1).all()  # to the right
    np.testing.assert_allclose(values, best, atol=0.1)
    assert metrics["return"][-100:].mean() > 0.95 > metrics["return"][:10].mean()
    assert metrics["entropy"][0] == pytest.approx(np.log(2), rel=0.05) and metrics["entropy"][-1] < 0.3


def test_minibatches_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"^3 minibatches do not divide the 32 .* \(4 environments x 8 steps\)$"):
        policy_gradient(ENV, table(ENV), optax.sgd(0.1), num_envs=4, unroll=8, minibatches=3)


def test_it_compiles_once_repeats_to_the_bit_and_a_member_of_a_population_is_the_seed_alone():
    learner = policy_gradient(ENV, table(ENV), optax.adam(0.05), num_envs=4, entropy_weight=0.01, **ALGORITHMS["ppo"])

    def after_ten(transform, keys):
        init, step = (
            quick(transform(lambda key: learner.init(key, ()))),
            quick(transform(lambda s: learner.step(s, ()))),
        )
        for _ in range(2):
            state, told = init(keys), []
            for _ in range(10):
                state, metrics = step(state)
                told.append(metrics)
            yield state._replace(key=jax.random.key_data(state.key)), jax.tree.map(lambda *x: np.stack(x), *told)
        assert step._cache_size() == 1  # what comes out is of the types that went in

    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    alone, again = after_ten(lambda f: f, keys[2])
    jax.tree.map(np.testing.assert_array_equal, alone, again)
    together, _ = after_ten(jax.vmap, keys)
    member = jax.tree.map(lambda x: x[2], together[0]), {name: x[:, 2] for name, x in together[1].items()}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), member, alone)
    assert (together[1]["entropy"][-1] != alone[1]["entropy"][-1]).sum() >= 2
