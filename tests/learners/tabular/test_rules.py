"""Every rule over transitions against a plain loop in NumPy that is fed the same transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.learners.tabular import dyna_q, q_learning, sarsa, td_zero
from dlfx.learners.tabular.double_q_learning import double_q_learning
from dlfx.learners.tabular.dyna_q import dyna_q_plus
from dlfx.learners.tabular.expected_sarsa import expected_sarsa
from dlfx.learners.tabular.interaction import Transition
from dlfx.learners.tabular.n_step_sarsa import n_step_sarsa
from dlfx.learners.tabular.n_step_td import n_step_td
from dlfx.learners.tabular.prioritized_sweeping import prioritized_sweeping
from dlfx.learners.tabular.sarsa_lambda import sarsa_lambda
from dlfx.learners.tabular.tables import uniforms
from dlfx.learners.tabular.td_lambda import td_lambda
from dlfx.learners.tabular.watkins_q import watkins_q
from dlfx.types import UserError

S, A, STEPS, GAMMA = 6, 3, 160, 0.9


@pytest.fixture(scope="module")
def transitions():
    """A run of a few episodes, some terminated, some truncated, in a world that has the same successor every time."""
    rng = np.random.default_rng(0)
    successor, reward = rng.integers(S, size=(S, A)), rng.normal(size=(S, A)).round(2)
    rows, state, action = [], 0, 1
    for _ in range(STEPS):
        policy = rng.dirichlet(np.ones(A))
        then, next_action = successor[state, action], rng.integers(A)
        terminated, truncated = then == S - 1, rng.random() < 0.1
        over = terminated or truncated
        discount = 0.0 if terminated else GAMMA
        alpha = 0.1 + 0.4 * rng.random()
        rows.append((state, action, reward[state, action], discount, then, over, next_action, policy, alpha, GAMMA))
        state, action = (rng.integers(S - 1), rng.integers(A)) if over else (then, next_action)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    kinds = [np.int32, np.int32, np.float32, np.float32, np.int32, bool, np.int32, np.float32, np.float32, np.float32]
    arrays = [jnp.asarray(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    assert arrays[5].sum() > 8 and (arrays[3] == 0).sum() > 3 and (arrays[5] & (arrays[3] > 0)).sum() > 3
    return Transition(*arrays, key=jax.random.split(jax.random.key(7), STEPS))


def learned(rule, transitions, initial=0.5):
    memory = rule.init(S, A, initial)
    memory, errors = jax.jit(lambda m: jax.lax.scan(rule.update, m, transitions))(memory)
    return np.asarray(rule.values(memory)), np.asarray(errors), memory


def steps(transitions):
    """The transitions one by one, as Python numbers."""
    fields = [np.asarray(x).tolist() if x is not transitions.key else list(x) for x in transitions]
    return [Transition(*row) for row in zip(*fields, strict=True)]


def same(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)
    assert np.abs(got - 0.5).max() > 0.1  # something was learned at all


def test_td_zero(transitions):
    v, errors = np.full(S, 0.5), []
    for x in steps(transitions):
        errors.append(x.reward + x.discount * v[x.successor] - v[x.state])
        v[x.state] += x.step_size * errors[-1]
    got, got_errors, _ = learned(td_zero.td_zero(), transitions)
    same(got, v)
    np.testing.assert_allclose(got_errors, errors, rtol=1e-3, atol=1e-5)


CONTROL_TARGETS = {
    "sarsa": (sarsa.sarsa, lambda q, x: q[x.successor, x.next_action]),
    "expected_sarsa": (
        expected_sarsa,
        lambda q, x: sum(p * v for p, v in zip(x.next_policy, q[x.successor], strict=True)),
    ),
    "q_learning": (q_learning.q_learning, lambda q, x: max(q[x.successor])),
}


@pytest.mark.parametrize("name", CONTROL_TARGETS)
def test_one_step_control(transitions, name):
    rule, following = CONTROL_TARGETS[name]
    q = np.full((S, A), 0.5)
    for x in steps(transitions):
        q[x.state, x.action] += x.step_size * (x.reward + x.discount * following(q, x) - q[x.state, x.action])
    same(learned(rule(), transitions)[0], q)


def test_the_target_of_sarsa_is_of_the_action_taken_and_that_of_q_learning_of_none(transitions):
    q = jnp.asarray(np.random.default_rng(1).normal(size=(S, A)), jnp.float32)
    x = jax.tree.map(lambda column: column[1], transitions)._replace(discount=jnp.float32(GAMMA))
    others = [x._replace(next_action=jnp.int32(a)) for a in range(A)]
    sarsa_targets = [float(sarsa.target(q, other)) for other in others]
    np.testing.assert_allclose(sarsa_targets, x.reward + GAMMA * q[x.successor], rtol=1e-6)
    assert len(set(sarsa_targets)) == A
    policies = [other._replace(next_policy=jnp.eye(A)[a]) for a, other in enumerate(others)]
    assert {float(q_learning.target(q, other)) for other in policies} == {max(sarsa_targets)}
    assert not q_learning.q_learning().on_policy and sarsa.sarsa().on_policy


def test_double_q_learning(transitions):
    q = np.full((2, S, A), 0.5)
    for x in steps(transitions):
        i = int(jax.random.bernoulli(x.key))
        best = int(np.argmax(q[i, x.successor]))
        aim = x.reward + x.discount * q[1 - i, x.successor, best]
        q[i, x.state, x.action] += x.step_size * (aim - q[i, x.state, x.action])
    got, _, memory = learned(double_q_learning(), transitions)
    same(got, q.mean(0))
    same(memory, q)
    np.testing.assert_allclose(double_q_learning().action_values(memory, jnp.int32(2)), q.mean(0)[2], rtol=1e-4)


@pytest.mark.parametrize("kind", ["accumulating", "replacing"])
@pytest.mark.parametrize("name", ["td", "sarsa", "watkins"])
def test_traces(transitions, kind, name):
    decay = 0.8
    values = np.full(S if name == "td" else (S, A), 0.5)
    e = np.zeros_like(values)
    for x in steps(transitions):
        place = x.state if name == "td" else (x.state, x.action)
        if name == "td":
            following, cut = values[x.successor], False
        elif name == "sarsa":
            following, cut = values[x.successor, x.next_action], False
        else:
            following = max(values[x.successor])
            cut = values[x.successor, x.next_action] < following
        error = x.reward + x.discount * following - values[place]
        e[place] = e[place] + 1 if kind == "accumulating" else 1
        values += x.step_size * error * e
        e = np.zeros_like(e) if x.over or cut else e * GAMMA * decay
    rule = {"td": td_lambda, "sarsa": sarsa_lambda, "watkins": watkins_q}[name]
    same(learned(rule(decay, kind), transitions)[0], values)


def test_the_ends_of_lambda(transitions):
    np.testing.assert_allclose(
        learned(td_lambda(0.0), transitions)[0], learned(td_zero.td_zero(), transitions)[0], rtol=1e-5
    )
    np.testing.assert_allclose(
        learned(watkins_q(0.0), transitions)[0], learned(q_learning.q_learning(), transitions)[0], rtol=1e-5
    )


def test_the_changes_of_td_lambda_sum_to_those_of_the_lambda_return(transitions):
    """Offline, the values left alone during an episode, the backward view is the forward view (S&B section 12.2)."""
    decay, v = 0.7, np.random.default_rng(2).normal(size=S).astype(np.float32)
    alpha = 0.1
    end = int(np.flatnonzero(np.asarray(transitions.over))[3]) + 1
    begin = int(np.flatnonzero(np.asarray(transitions.over))[2]) + 1
    episode = steps(transitions)[begin:end]
    assert len(episode) > 3
    rule = td_lambda(decay)
    memory, change = rule.init(S, A, 0.0)._replace(values=jnp.asarray(v)), np.zeros(S)
    for i in range(begin, end):
        x = jax.tree.map(lambda column, i=i: column[i], transitions)._replace(step_size=jnp.float32(alpha))
        memory, _ = rule.update(memory, x)
        change += np.asarray(memory.values) - v
        memory = memory._replace(values=jnp.asarray(v))
    wanted, following = np.zeros(S), None
    for x in reversed(episode):
        if following is None:
            following = v[x.successor]
        following = x.reward + x.discount * ((1 - decay) * v[x.successor] + decay * following)
        wanted[x.state] += alpha * (following - v[x.state])
    np.testing.assert_allclose(change, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 64])
@pytest.mark.parametrize("control", [False, True])
def test_n_step(transitions, n, control):
    """The textbook's loop over tau with all rewards kept, as in the box of n-step TD, section 7.1."""
    values = np.full((S, A) if control else S, 0.5)
    episode = []
    for x in steps(transitions):
        episode.append(x)
        due = range(len(episode) - n, len(episode)) if x.over else [len(episode) - n]
        for tau in due:
            if tau < 0:
                continue
            last = episode[-1]
            gain = sum(GAMMA**k * y.reward for k, y in enumerate(episode[tau:]))
            following = values[last.successor, last.next_action] if control else values[last.successor]
            gain += GAMMA ** (len(episode) - tau) * following * (last.discount > 0)
            first = episode[tau]
            place = (first.state, first.action) if control else first.state
            values[place] += first.step_size * (gain - values[place])
        if x.over:
            episode = []
    rule = n_step_sarsa(A, n) if control else n_step_td(n)
    same(learned(rule, transitions)[0], values)
    if n == 1:
        one = sarsa.sarsa() if control else td_zero.td_zero()
        np.testing.assert_allclose(learned(rule, transitions)[0], learned(one, transitions)[0], rtol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
def test_dyna_q(transitions, plus):
    n, kappa = 4, 0.05 if plus else 0.0
    q, model, last, seen = np.full((S, A), 0.5), {}, np.zeros((S, A)), []
    for t, x in enumerate(steps(transitions), 1):
        q[x.state, x.action] += x.step_size * (x.reward + x.discount * max(q[x.successor]) - q[x.state, x.action])
        if x.state not in seen:
            seen.append(x.state)
            if plus:
                model.update({(x.state, a): (0.0, x.state, GAMMA) for a in range(A) if (x.state, a) not in model})
        model[x.state, x.action] = x.reward, x.successor, x.discount
        last[x.state, x.action] = t
        for u in np.asarray(uniforms(x.key, n, 2)):
            s = seen[int(u[0] * len(seen))]
            known = [a for a in range(A) if (s, a) in model]
            a = known[min(int(u[1] * len(known)), len(known) - 1)]
            reward, then, discount = model[s, a]
            reward += kappa * np.sqrt(t - last[s, a])
            q[s, a] += x.step_size * (reward + discount * max(q[then]) - q[s, a])
    rule = dyna_q_plus(n, kappa) if plus else dyna_q.dyna_q(n)
    same(learned(rule, transitions)[0], q)


def test_dyna_q_without_planning_is_q_learning(transitions):
    plain = learned(q_learning.q_learning(), transitions)[0]
    np.testing.assert_array_equal(learned(dyna_q.dyna_q(0), transitions)[0], plain)


@pytest.mark.parametrize(("n", "theta"), [(3, 0.02), (1, 0.0), (2, 0.3)])
def test_prioritized_sweeping(transitions, n, theta):
    q, model, queue, wanted = np.full((S, A), 0.5), {}, {}, []

    def push(pair, size):
        if size > theta:
            queue[pair] = max(size, queue.get(pair, 0.0))

    for x in steps(transitions):
        model[x.state, x.action] = x.reward, x.successor, x.discount
        push((x.state, x.action), abs(x.reward + x.discount * max(q[x.successor]) - q[x.state, x.action]))
        for _ in range(n):
            if not queue:
                break
            pair = max(sorted(queue), key=lambda p: queue[p])
            del queue[pair]
            reward, then, discount = model[pair]
            q[pair] += x.step_size * (reward + discount * max(q[then]) - q[pair])
            for before, (reward, then, discount) in model.items():
                if then == pair[0]:
                    push(before, abs(reward + discount * max(q[then]) - q[before]))
        waiting = np.zeros((S, A))
        for pair, size in queue.items():
            waiting[pair] = size
        wanted.append((q.copy(), waiting))
    rule = prioritized_sweeping(n, theta)

    def step(memory, x):
        memory, _ = rule.update(memory, x)
        return memory, (memory.q, memory.priority)

    _, got = jax.jit(lambda memory: jax.lax.scan(step, memory, transitions))(rule.init(S, A, 0.5))
    for i, what in enumerate(zip(*wanted, strict=True)):
        np.testing.assert_allclose(got[i], np.array(what), rtol=1e-3, atol=1e-4)  # at every step, the queue too
    same(got[0][-1], q)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dyna_q.dyna_q(19).init(S, A, 0.0), "planning_steps=19 is more than the model can hold.*18 pairs"),
        (lambda: prioritized_sweeping(19, 0.1).init(S, A, 0.0), "planning_steps=19 is more"),
        (lambda: dyna_q.dyna_q(-1), "planning_steps=-1"),
        (lambda: prioritized_sweeping(0, 0.1), "planning_steps=0"),
        (lambda: prioritized_sweeping(1, -0.1), "threshold=-0.1"),
        (lambda: td_lambda(1.5), "trace_decay=1.5.*between 0 and 1"),
        (lambda: sarsa_lambda(0.5, "dutch"), "accumulating or replacing, not 'dutch'"),
        (lambda: n_step_td(0), "n=0.*at least 1"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError, match=message):
        make()
    dyna_q.dyna_q(18).init(S, A, 0.0)
