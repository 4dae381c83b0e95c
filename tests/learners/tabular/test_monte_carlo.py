"""Monte Carlo rules against plain loops over the same episode, and against what the textbook says comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs import gridworlds
from dlfx.envs.tabular import environment
from dlfx.learners.tabular import monte_carlo, off_policy_monte_carlo, policies, schedules
from dlfx.learners.tabular.episodes import Episode, episodes
from dlfx.types import UserError

S, A, LONGEST, GAMMA = 4, 2, 30, 0.9


def some_episodes(count=12):
    rng = np.random.default_rng(0)
    for i in range(count):
        length = rng.integers(1, LONGEST)
        yield Episode(
            jnp.asarray(rng.integers(S, size=LONGEST), jnp.int32),
            jnp.asarray(rng.integers(A, size=LONGEST), jnp.int32),
            jnp.asarray(rng.normal(size=LONGEST), jnp.float32),
            jnp.asarray(rng.uniform(0.2, 1, size=LONGEST), jnp.float32),
            jnp.int32(length),
            jnp.float32(0.0 if i % 3 else 0.7),
            jnp.float32(GAMMA),
            jnp.int32(0),
        )


def learned(rule):
    memory, update = rule.init(S, A, 0.0), jax.jit(rule.update)
    for episode in some_episodes():
        memory, error = update(memory, episode)
        assert np.isfinite(error)
    return np.asarray(rule.values(memory))


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("first_visit", [True, False])
def test_the_mean_of_the_returns(first_visit, control):
    returns = {}
    for episode in some_episodes():
        length, gain, gains = int(episode.length), float(episode.tail), {}
        places = [(int(s), int(a)) if control else int(s) for s, a in zip(episode.state, episode.action, strict=True)][
            :length
        ]
        for t in reversed(range(length)):
            gain = float(episode.reward[t]) + GAMMA * gain
            gains[t] = gain
        for t, place in enumerate(places):
            if not first_visit or place not in places[:t]:
                returns.setdefault(place, []).append(gains[t])
    wanted = np.zeros((S, A) if control else S)
    for place, gained in returns.items():
        wanted[place] = np.mean(gained)
    by_visits = schedules.by_visits()
    if control:
        got = learned(monte_carlo.monte_carlo_control(A, by_visits, first_visit))
    else:
        got = learned(monte_carlo.monte_carlo_prediction(by_visits, first_visit))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def test_weighted_importance_sampling():
    q, c = np.zeros((S, A)), np.zeros((S, A))
    for episode in some_episodes():
        gain, weight = float(episode.tail), 1.0
        for t in reversed(range(int(episode.length))):
            s, a = int(episode.state[t]), int(episode.action[t])
            gain = float(episode.reward[t]) + GAMMA * gain
            c[s, a] += weight
            q[s, a] += weight / c[s, a] * (gain - q[s, a])
            if np.argmax(q[s]) != a:
                break
            weight /= float(episode.probability[t])
    np.testing.assert_allclose(learned(off_policy_monte_carlo.off_policy_monte_carlo()), q, rtol=1e-3, atol=1e-5)


def run(learner, steps, seeds=1, seed=0):
    keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + seeds))

    def one(key):
        return jax.lax.scan(learner.step, learner.init(key, ()), (), steps)

    return jax.jit(jax.vmap(one))(keys)


def test_prediction_finds_the_values_of_the_random_walk():
    env = environment("walk", gridworlds.random_walk(), max_steps=200)
    policy = policies.given(np.full((7, 2), 0.5))
    for first_visit in (True, False):
        rule = monte_carlo.monte_carlo_prediction(schedules.by_visits(), first_visit)
        state, metrics = run(episodes(env, rule, policy, gamma=1.0), 100, seeds=64)
        values = np.asarray(state.memory.values).mean(0)[1:-1]
        np.testing.assert_allclose(values, np.arange(1, 6) / 6, atol=0.03)
        np.testing.assert_allclose(np.mean(metrics["return"]), 0.5, atol=0.03)
        np.testing.assert_allclose(np.mean(metrics["length"]), 9.0, atol=0.4)  # 3 * 3, the gambler's ruin
        assert (state.time == metrics["length"].sum(1)).all()


def test_first_and_every_visit_differ_on_one_state():
    """A loop of two steps through the same state, +1 each: first visit says 2, every visit (2 + 1) / 2."""
    episode = next(some_episodes())._replace(
        state=jnp.zeros(LONGEST, jnp.int32), reward=jnp.ones(LONGEST), length=jnp.int32(2), tail=jnp.float32(0)
    )
    for first_visit, wanted in ((True, 2.0), (False, 1.5)):
        rule = monte_carlo.monte_carlo_prediction(schedules.by_visits(), first_visit)
        memory, _ = rule.update(rule.init(S, A, 0.0), episode._replace(gamma=jnp.float32(1)))
        assert memory.values[0] == wanted


@pytest.mark.parametrize("how", ["exploring starts", "epsilon-soft", "off-policy"])
def test_control_solves_a_small_world(how):
    mdp = gridworlds.random_walk(3)  # right is best everywhere; the end on the right pays 1
    start = np.where(mdp.terminal, 0, 1 / 3)
    env = environment("walk", mdp._replace(start=start), max_steps=40)
    soft = policies.epsilon_greedy(schedules.constant(0.0 if how == "exploring starts" else 0.3))
    if how == "off-policy":
        rule = off_policy_monte_carlo.off_policy_monte_carlo()
    else:
        rule = monte_carlo.monte_carlo_control(2, schedules.by_visits())
    learner = episodes(env, rule, soft, gamma=0.9, exploring_starts=how == "exploring starts")
    state, metrics = run(learner, 150, seeds=4)
    q = np.asarray(jax.vmap(rule.values)(state.memory))[:, 1:-1]
    assert (q.argmax(-1) == 1).all()
    assert np.isfinite(metrics["td_error"]).all()
    if how != "epsilon-soft":
        np.testing.assert_allclose(q[:, 1:, 1], np.tile([0.9, 1.0], (4, 1)), atol=0.05)
        np.testing.assert_allclose(q[:, 0, 1], 0.81, atol=0.15)  # a mean that still holds the first, poor returns


def test_a_truncated_episode_counts_what_is_expected_after_it():
    env = environment("walk", gridworlds.random_walk(5, 0.0, 0.0), max_steps=1)
    rule = monte_carlo.monte_carlo_prediction(schedules.constant(1.0))
    learner = episodes(env, rule, policies.given(np.full((7, 2), 0.5)), gamma=0.5, initial_value=1.0)
    state, metrics = learner.step(learner.init(jax.random.key(0), ()), ())
    assert state.memory.values[3] == 0.5 and metrics["length"] == 1


def test_mistakes():
    rule = monte_carlo.monte_carlo_prediction(schedules.by_visits())
    policy = policies.given(np.full((7, 2), 0.5))
    with pytest.raises(UserError, match="walk sets no limit of steps"):
        episodes(environment("walk", gridworlds.random_walk()), rule, policy, gamma=1.0)
    with pytest.raises(UserError, match=r"gamma=1.5 .* between 0 and 1"):
        episodes(environment("walk", gridworlds.random_walk(), max_steps=9), rule, policy, gamma=1.5)
