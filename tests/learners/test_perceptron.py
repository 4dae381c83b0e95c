"""The perceptron: its rule by hand, by loop and by scikit-learn, what it can and cannot learn, and the pocket."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.learners import perceptron as unit
from dlfx.types import UserError
from tests.compiling import quick

X = np.array([[-1, 1, -2, 0], [-1, 0, 1.5, -0.5], [-1, -1, 1, 0.5]])
D = np.array([-1.0, -1.0, 1.0])
W0 = np.array([0.5, 1, -1, 0])
PLANE = np.array([[-1, a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
GATES = {"and": [-1, -1, -1, 1], "or": [-1, 1, 1, 1], "nand": [1, 1, 1, -1], "xor": [-1, 1, 1, -1]}


def begin_at(weights):
    return lambda key, shape, dtype: jnp.asarray(weights, dtype)


def rows_of(x, target):
    """One row a batch: `[m, 1, n]` and `[m, 1]`."""
    return {"x": jnp.asarray(x, jnp.float32)[:, None], "target": jnp.asarray(target, jnp.float32)[:, None]}


def run(learner, batches, seed=0):
    """The final state, and the weights after every batch."""
    first = learner.init(jax.random.key(seed), jax.tree.map(lambda x: x[0], batches))

    def one(state, batch):
        state, metrics = learner.step(state, batch)
        return state, (state.weights, state.pocket, metrics)

    return quick(lambda state, batches: jax.lax.scan(one, state, batches))(first, batches)


def loop(weights, x, target, rate, output):
    """The rule, in NumPy: every W(k), and which rows were wrong."""
    weights, wrong = [np.array(weights, np.float64)], []
    for row, d in zip(x, target, strict=True):
        o = output(weights[-1] @ row)
        weights.append(weights[-1] + rate * (d - o) * row)
        wrong.append(o != d)
    return np.array(weights), np.array(wrong)


def step(net):
    return 1.0 if net >= 0 else -1.0


def separable(seed, size=40, n=4, gap=0.2):
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=n)
    x = np.insert(rng.normal(size=(400, n - 1)), 0, -1, axis=1)
    x = x[np.abs(x @ plane) > gap][:size]
    return x, np.sign(x @ plane)


def test_the_worked_example_by_hand():
    nets, weights = [], [W0]
    for k in range(3):
        new, net = unit.update(
            jnp.float32(weights[-1]), jnp.float32(X[k]), jnp.float32(D[k]), 0.1, unit.ACTIVATIONS["sign"]
        )
        nets.append(net)
        weights.append(new)
    np.testing.assert_allclose(nets, [2.5, -1.6, -2.1], atol=1e-6)
    np.testing.assert_allclose(
        weights[1:], [[0.7, 0.8, -0.6, 0], [0.7, 0.8, -0.6, 0], [0.5, 0.6, -0.4, 0.1]], atol=1e-6
    )
    # After the first epoch two rows are still wrong.
    np.testing.assert_allclose(unit.nets(weights[3], jnp.float32(X))[jnp.array([0, 2])], [0.9, -1.45], atol=1e-6)


def test_the_worked_example_goes_on_to_its_end():
    learner = unit.perceptron(0.1, initial=begin_at(W0))
    _, (weights, _, metrics) = run(learner, rows_of(np.tile(X, (5, 1)), np.tile(D, 5)))
    known = {
        4: [0.7, 0.4, 0, 0.1],
        6: [0.5, 0.2, 0.2, 0.2],
        9: [0.3, 0, 0.4, 0.3],
        11: [0.5, 0, 0.1, 0.4],
        12: [0.3, -0.2, 0.3, 0.5],
        15: [0.3, -0.2, 0.3, 0.5],
    }
    for k, wanted in known.items():
        np.testing.assert_allclose(weights[k - 1], wanted, atol=1e-6, err_msg=f"W({k})")
    np.testing.assert_array_equal(metrics["wrong"], [1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0])
    # The criterion is what a wrong net is away from 0.
    np.testing.assert_allclose(metrics["criterion"][:4], [2.5, 0, 2.1, 0.9], atol=1e-6)


def test_a_threshold_is_a_bias_of_the_other_sign():
    rng = np.random.default_rng(0)
    x, w = jnp.array(rng.normal(size=(7, 3))), jnp.array(rng.normal(size=3))
    rows = jnp.insert(x, 0, -1.0, axis=1)
    np.testing.assert_allclose(unit.neuron(w, -0.4, x, jnp.tanh), np.tanh(np.asarray(x) @ w - 0.4), rtol=1e-5)
    np.testing.assert_allclose(
        unit.nets(jnp.insert(w, 0, 0.4), rows), unit.neuron(w, -0.4, x, lambda net: net), rtol=1e-5
    )


def test_a_net_of_zero_tells_sign_from_step():
    """Both are called a step function. `sign` gives 0 there, and with it half a correction for either class."""
    x, zero = jnp.array([-1.0, 2.0]), jnp.zeros(2)
    changes = {
        (name, d): np.asarray(unit.update(zero, x, jnp.float32(d), 0.5, f)[0])
        for name, f in unit.ACTIVATIONS.items()
        for d in (-1, 1)
    }
    np.testing.assert_array_equal(changes["sign", 1], [-0.5, 1])
    np.testing.assert_array_equal(changes["sign", -1], [0.5, -1])
    np.testing.assert_array_equal(changes["step", 1], [0, 0])
    np.testing.assert_array_equal(changes["step", -1], [1, -2])
    np.testing.assert_array_equal(unit.bipolar_step(jnp.array([-2.0, -0.0, 0.0, 3.0])), [-1, 1, 1, 1])
    np.testing.assert_array_equal(
        unit.bipolar_step(jnp.array([-2.0, 3.0])), 2 * np.heaviside(np.array([-2.0, 3.0]), 1) - 1
    )
    assert [int(unit.errors(zero, x[None], jnp.ones(1), f)) for f in unit.ACTIVATIONS.values()] == [1, 0]


@pytest.mark.parametrize("activation", unit.ACTIVATIONS)
def test_it_is_a_loop_over_the_rows(activation):
    rng = np.random.default_rng(1)
    x, d, start = rng.normal(size=(60, 5)), rng.choice([-1.0, 1.0], 60), rng.normal(size=5)
    wanted, wrong = loop(start, x, d, 0.25, {"sign": np.sign, "step": step}[activation])
    learner = unit.perceptron(0.25, activation, initial=begin_at(start))
    _, (weights, _, metrics) = run(learner, rows_of(x, d))
    np.testing.assert_allclose(weights, wanted[1:], atol=1e-5)
    np.testing.assert_array_equal(metrics["wrong"], wrong)
    assert 10 < wrong.sum() < 50

    several = {"x": jnp.float32(x).reshape(12, 5, 5), "target": jnp.float32(d).reshape(12, 5)}
    state, (weights, _, metrics) = run(learner, several)
    np.testing.assert_allclose(weights, wanted[5::5], atol=1e-5)
    np.testing.assert_allclose(metrics["wrong"], wrong.reshape(12, 5).mean(1), rtol=1e-6)
    assert state.step == 12 and state.pocket is None


def test_it_is_scikit_learns_at_twice_the_rate():
    """There a wrong row moves the weights by `eta0 d x`; here by `eta (d - o) X`, twice that."""
    from sklearn.linear_model import Perceptron

    rng = np.random.default_rng(2)
    x, d = separable(3)
    start = rng.normal(size=4)  # not 0, where scikit-learn corrects in full and the sign by half
    theirs = Perceptron(eta0=0.5, shuffle=False, tol=None, max_iter=30, penalty=None)
    theirs.fit(x[:, 1:], d, coef_init=start[None, 1:].copy(), intercept_init=-start[:1])  # in place
    learner = unit.perceptron(0.25, initial=begin_at(start))
    state, _ = run(learner, rows_of(np.tile(x, (30, 1)), np.tile(d, 30)))
    np.testing.assert_allclose(state.weights[1:], theirs.coef_[0], atol=1e-4)
    np.testing.assert_allclose(-state.weights[0], theirs.intercept_[0], atol=1e-4)
    assert not np.allclose(state.weights, start) and theirs.score(x[:, 1:], d) == 1


@pytest.mark.parametrize("activation", unit.ACTIVATIONS)
def test_gates_are_learned_and_xor_never_is(activation):
    f = unit.ACTIVATIONS[activation]
    learn = quick(lambda d: unit.until_right(jnp.zeros(3), jnp.asarray(PLANE), d, 0.5, f, 200))
    learned = {}
    for name, targets in GATES.items():
        d = np.array(targets, np.float32)
        weights, epochs, wrong = learn(d)
        learned[name] = weights
        if name == "xor":
            assert epochs == 200 and wrong > 0 and int(unit.errors(weights, PLANE, d, f)) > 0
        else:
            assert epochs < 10 and wrong == 0
            np.testing.assert_array_equal(np.where(PLANE @ np.asarray(weights) > 0, 1, -1), d)
    hidden = jnp.stack([learned["or"], learned["nand"]])
    outputs = unit.two_layers(hidden, learned["and"], jnp.asarray(PLANE, jnp.float32), f)
    np.testing.assert_array_equal(outputs, GATES["xor"])
    nand, _, _ = unit.until_right(jnp.zeros(2), jnp.array([[-1.0, -1], [-1, 1]]), jnp.array([1.0, -1]), 0.5, f, 9)
    assert nand[1] < 0  # NOT


def test_until_right_stops_after_the_first_epoch_without_an_error():
    f = unit.ACTIVATIONS["sign"]
    arguments = jnp.float32(W0), jnp.float32(X), jnp.float32(D), 0.1, f
    weights, epochs, wrong = unit.until_right(*arguments, 100)
    assert (epochs, wrong) == (5, 0) and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights, [0.3, -0.2, 0.3, 0.5], atol=1e-6)
    weights, epochs, wrong = unit.until_right(*arguments, 2)
    assert (epochs, wrong) == (2, 2)
    np.testing.assert_allclose(weights, [0.5, 0.2, 0.2, 0.2], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_convergence_theorem_bounds_its_corrections(seed):
    """From 0, no more than `(R / gamma)^2`, whatever the rate (Novikoff 1962)."""
    from scipy.optimize import minimize

    x, d = separable(seed, gap=0.3)
    best = minimize(
        lambda w: w @ w,
        np.linalg.lstsq(x, d, rcond=None)[0],
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: d * (x @ w) - 1, "jac": lambda w: d[:, None] * x},
        method="SLSQP",
        options={"maxiter": 500},
    ).x
    gamma = (d * (x @ best)).min() / np.linalg.norm(best)
    assert gamma > 0
    learner = unit.perceptron(0.7, "step")
    state, (_, _, metrics) = run(learner, rows_of(np.tile(x, (300, 1)), np.tile(d, 300)))
    mistakes = float(metrics["wrong"].sum())
    assert 0 < mistakes <= np.linalg.norm(x, axis=1).max() ** 2 / gamma**2
    assert metrics["wrong"][-len(x) :].sum() == 0 and (np.sign(x @ np.asarray(state.weights)) == d).all()


def clouds():
    rng = np.random.default_rng(5)
    d = np.where(np.arange(30) % 2, 1.0, -1.0)
    x = np.insert(rng.normal(size=(30, 2)) + 0.5 * d[:, None], 0, -1, axis=1)
    return x, d, rng.integers(30, size=600)


def test_the_pocket_holds_the_first_of_the_best_weights_there_were():
    x, d, order = clouds()
    learner = unit.perceptron(0.3, pocket=(jnp.float32(x), jnp.float32(d)))
    state, (weights, pockets, _) = run(learner, rows_of(x[order], d[order]))
    weights = np.insert(np.asarray(weights), 0, 0, axis=0)  # W(0)
    wrong = (np.sign(weights @ x.T.astype(np.float32)) != d).sum(1)
    np.testing.assert_array_equal(state.pocket, weights[wrong.argmin()])
    assert state.pocket_errors == wrong.min() < wrong[-1] and state.pocket_errors.dtype == jnp.int32
    held = (np.sign(np.asarray(pockets) @ x.T.astype(np.float32)) != d).sum(1)
    np.testing.assert_array_equal(held, np.minimum.accumulate(wrong)[1:])


def test_the_pocket_is_never_worse_than_gallants():
    x, d, order = clouds()
    state, _ = run(unit.perceptron(0.3, pocket=(jnp.float32(x), jnp.float32(d))), rows_of(x[order], d[order]))
    weights, best, run_length, longest, fewest = np.zeros(3), np.zeros(3), 0, 0, len(x)
    for i in order:
        if np.sign(weights @ x[i]) == d[i]:
            run_length += 1
            wrong = (np.sign(x @ weights) != d).sum()
            if run_length > longest and wrong < fewest:
                best, longest, fewest = weights, run_length, wrong
        else:
            run_length = 0
            weights = weights + 0.3 * (d[i] - np.sign(weights @ x[i])) * x[i]
    assert best.any() and state.pocket_errors <= fewest < 15


def test_rows_on_several_devices_are_learned_in_their_global_order():
    x, d, _ = clouds()
    pocket = jnp.float32(x), jnp.float32(d)
    batch = {"x": pocket[0][:12], "target": pocket[1][:12]}
    whole, split = (unit.perceptron(0.3, pocket=pocket, axis_name=axis) for axis in (None, "data"))
    state = whole.init(jax.random.key(0), batch)
    wanted, metrics = quick(whole.step)(state, batch)
    parts = jax.tree.map(lambda x: x.reshape(4, 3, *x.shape[1:]), batch)
    states, measured = quick(jax.vmap(split.step, (None, 0), axis_name="data"))(state, parts)
    for device in range(4):
        np.testing.assert_allclose(states.weights[device], wanted.weights, atol=1e-6)
        assert states.pocket_errors[device] == wanted.pocket_errors
        np.testing.assert_allclose(measured["wrong"][device], metrics["wrong"])


def test_it_survives_vmap_and_scan_without_a_second_trace_and_repeats():
    x, d, order = clouds()
    normal = jax.nn.initializers.normal(1.0)
    learner = unit.perceptron(0.3, initial=normal, pocket=(jnp.float32(x), jnp.float32(d)))
    batches, traces = rows_of(x[order[:40]], d[order[:40]]), []

    def many(states, batches):
        traces.append(1)
        return jax.vmap(lambda state: jax.lax.scan(learner.step, state, batches))(states)

    compiled = quick(many)
    first = jax.tree.map(lambda x: x[0], batches)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    states = jax.vmap(learner.init, (0, None))(keys, first)
    after, metrics = compiled(states, batches)
    again, _ = compiled(jax.vmap(learner.init, (0, None))(keys, first), batches)
    assert len(traces) == 1 and metrics["wrong"].shape == (3, 40) and (after.step == 40).all()
    assert (jax.random.key_data(after.key) == jax.random.key_data(keys)).all()
    np.testing.assert_array_equal(after.weights, again.weights)
    assert len(np.unique(np.asarray(states.weights))) == 9
    for member in range(3):
        alone, _ = run(learner, batches, member)
        np.testing.assert_allclose(after.weights[member], alone.weights, atol=1e-5)
    expected = normal(jax.random.fold_in(jax.random.key(1), 2**31 - 1), (3,), jnp.float32)
    np.testing.assert_array_equal(states.weights[1], expected)


def test_the_state_can_be_donated():
    x, d, _ = clouds()
    learner = unit.perceptron(0.3, pocket=(jnp.float32(x), jnp.float32(d)))
    batch = {"x": jnp.float32(x[:2]), "target": jnp.float32(d[:2])}
    state = jax.jit(learner.step, donate_argnums=0)(learner.init(jax.random.key(0), batch), batch)[0]
    assert jax.tree.map(lambda a: a.dtype, state)[:4] == (jnp.float32, jnp.float32, jnp.int32, jnp.int32)


def test_mistakes_are_named():
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="rate of .* above 0"):
            unit.perceptron(rate)
    with pytest.raises(UserError, match="unknown activation 'sgn'; did you mean sign"):
        unit.perceptron(0.1, "sgn")
