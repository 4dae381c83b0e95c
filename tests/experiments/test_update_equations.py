"""Every optimizer of the flags against its update equations, written out in NumPy from the papers, over 25 steps.

Where optax departs from the paper the equation here is optax's, and a comment says so.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import flagsaver

from experiments.optimizers import OPTIMIZERS
from tests.compiling import quick

STEPS, RATE, MU, DECAY = 25, 0.05, 0.8, 0.03
B1, B2 = 0.9, 0.999
START = {"kernel": np.array([[2.0, -1.0, 0.5], [-0.3, 1.5, -2.0]]), "bias": np.array([0.7, -1.2, 0.0])}


@pytest.fixture
def optimizers():
    from experiments import optimizers

    optimizers.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(learning_rate=RATE, momentum=MU):
        yield optimizers


def slope(p):
    """The gradient of a function that is neither quadratic nor alike in its coordinates."""
    steepness = np.arange(1, p.size + 1).reshape(p.shape) / 3
    return steepness * p + (jnp if isinstance(p, jax.Array) else np).cos(3 * p)


def by_optax(rule):
    def body(carry, _):
        params, state = carry
        updates, state = rule.update(jax.tree.map(slope, params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, START)
        path = quick(lambda p: jax.lax.scan(body, (p, rule.init(p)), None, STEPS)[1])(start)
        return jax.tree.map(np.asarray, path)


def by_hand(equations, decay=0.0):
    """Runs `equations(p, decay, memory, t)`, which gives the change of p; memory begins as zeros."""
    found = {}
    for name, p in START.items():
        memory, path = {}, []
        for t in range(1, STEPS + 1):
            p = p + equations(p, slope(p), decay if p.ndim > 1 else 0.0, memory, t)
            path.append(p)
        found[name] = np.stack(path)
    return found


def average(memory, name, beta, value):
    memory[name] = beta * memory.get(name, np.zeros_like(value)) + (1 - beta) * value
    return memory[name]


def sgd(p, g, decay, memory, t):
    return -RATE * g


def momentum(p, g, decay, memory, t):  # Polyak 1964, as a sum of gradients
    memory["v"] = MU * memory.get("v", 0.0) + g
    return -RATE * memory["v"]


def nesterov(p, g, decay, memory, t):  # Sutskever et al. 2013, in the variable that looks ahead
    memory["v"] = MU * memory.get("v", 0.0) + g
    return -RATE * (g + MU * memory["v"])


def adagrad(p, g, decay, memory, t):  # Duchi et al. 2011; optax begins the sum at 0.1 and has 1e-7 under the root
    memory["sum"] = memory.get("sum", 0.1) + g**2
    return -RATE * g / np.sqrt(memory["sum"] + 1e-7)


def adadelta(p, g, decay, memory, t):  # Zeiler 2012, algorithm 1, times a rate that the paper has not
    v = average(memory, "g", 0.9, g**2)
    change = np.sqrt(memory.get("x", np.zeros_like(g)) + 1e-6) / np.sqrt(v + 1e-6) * g
    average(memory, "x", 0.9, change**2)
    return -RATE * change


def rmsprop(p, g, decay, memory, t):  # Tieleman and Hinton 2012; optax has epsilon under the root
    return -RATE * g / np.sqrt(average(memory, "v", 0.9, g**2) + 1e-8)


def moments(g, memory, t):
    m, v = average(memory, "m", B1, g), average(memory, "v", B2, g**2)
    return m / (1 - B1**t), v / (1 - B2**t)


def adam(p, g, decay, memory, t):  # Kingma and Ba 2015, algorithm 1
    m, v = moments(g, memory, t)
    return -RATE * m / (np.sqrt(v) + 1e-8)


def amsgrad(p, g, decay, memory, t):  # Reddi et al. 2018; optax corrects the biases, and before the maximum
    m, v = moments(g, memory, t)
    memory["most"] = np.maximum(memory.get("most", 0.0), v)
    return -RATE * m / (np.sqrt(memory["most"]) + 1e-8)


def adamax(p, g, decay, memory, t):  # Kingma and Ba 2015, algorithm 2; optax adds 1e-8 to |g|
    m = average(memory, "m", B1, g)
    memory["u"] = np.maximum(B2 * memory.get("u", 0.0), abs(g) + 1e-8)
    return -RATE / (1 - B1**t) * m / memory["u"]


def look_ahead(g, memory, t):  # Dozat 2016, algorithm 2, without its b2 in front of v
    m, v = average(memory, "m", B1, g), average(memory, "v", B2, g**2)
    return B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t), v / (1 - B2**t)


def nadam(p, g, decay, memory, t):
    m, v = look_ahead(g, memory, t)
    return -RATE * m / (np.sqrt(v) + 1e-8)


def radam(p, g, decay, memory, t):  # Liu et al. 2020, algorithm 2; optax rectifies from rho = 5 on, the paper above 4
    m, v = moments(g, memory, t)
    most = 2 / (1 - B2) - 1
    rho = most - 2 * t * B2**t / (1 - B2**t)
    if rho < 5:
        return -RATE * m
    r = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return -RATE * r * m / (np.sqrt(v) + 1e-8)


def adabelief(p, g, decay, memory, t):  # Zhuang et al. 2020, algorithm 2; both of optax's epsilons are 1e-16
    m = average(memory, "m", B1, g)
    memory["s"] = B2 * memory.get("s", 0.0) + (1 - B2) * (g - m) ** 2 + 1e-16
    return -RATE * m / (1 - B1**t) / (np.sqrt(memory["s"] / (1 - B2**t)) + 1e-16)


def adamw(p, g, decay, memory, t):  # Loshchilov and Hutter 2019, algorithm 2; here the rate is of the decay too
    return adam(p, g, decay, memory, t) - RATE * decay * p


def nadamw(p, g, decay, memory, t):
    return nadam(p, g, decay, memory, t) - RATE * decay * p


def lion(p, g, decay, memory, t):  # Chen et al. 2023, algorithm 2
    change = np.sign(B1 * memory.get("m", 0.0) + (1 - B1) * g)
    average(memory, "m", 0.99, g)
    return -RATE * (change + decay * p)


def lamb(p, g, decay, memory, t):  # You et al. 2020, algorithm 2, with phi the identity and one ratio a tensor
    m, v = moments(g, memory, t)
    change = m / (np.sqrt(v) + 1e-6) + decay * p
    return -RATE * np.linalg.norm(p) / np.linalg.norm(change) * change


EQUATIONS = {
    rule.__name__: rule
    for rule in (
        sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, amsgrad, adamax, nadam, radam, adabelief,
        adamw, nadamw, lion, lamb,
    )
}  # fmt: skip
DECOUPLED = ["adamw", "nadamw", "lion", "lamb"]


def test_every_optimizer_has_its_equation():
    assert set(EQUATIONS) == set(OPTIMIZERS)


@pytest.mark.parametrize(("name", "decay"), [(name, 0.0) for name in OPTIMIZERS] + [(n, DECAY) for n in DECOUPLED])
def test_updates_are_the_equations(optimizers, name, decay):
    with flagsaver.flagsaver(optimizer=name, weight_decay=decay):
        got = by_optax(optimizers.optimizer(STEPS))
    wanted = by_hand(EQUATIONS[name], decay)
    for leaf in START:
        assert got[leaf].dtype == np.float64
        np.testing.assert_allclose(got[leaf], wanted[leaf], rtol=1e-9, atol=1e-11, err_msg=leaf)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(DECOUPLED)))
def test_other_optimizers_decay_through_the_gradient(optimizers, name):
    """L2 regularisation: the decay is in the moments too, which is what decoupling is against."""

    def equations(p, g, decay, memory, t):
        return EQUATIONS[name](p, g + decay * p, 0.0, memory, t)

    with flagsaver.flagsaver(optimizer=name, weight_decay=DECAY):
        got = by_optax(optimizers.optimizer(STEPS))
    wanted = by_hand(equations, DECAY)
    np.testing.assert_allclose(got["kernel"], wanted["kernel"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got["bias"], wanted["bias"], rtol=1e-9, atol=1e-11)


def updates(rule, gradients):
    """The change of a parameter of 1 for a sequence of gradients, `[T]`."""

    def body(state, g):
        change, state = rule.update(g, state, jnp.ones_like(g))
        return state, change

    with jax.enable_x64(True):
        gradients = jnp.asarray(gradients, jnp.float64)
        return np.asarray(quick(lambda g: jax.lax.scan(body, rule.init(g[0]), g)[1])(gradients))


def make(optimizers, name, rate=RATE):
    with flagsaver.flagsaver(optimizer=name, learning_rate=rate):
        return optimizers.optimizer(STEPS)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamax", "lion"])
def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient(optimizers, name):
    for g in (3.0, -1e-3, 1e5):
        np.testing.assert_allclose(updates(make(optimizers, name), [g]), -RATE * np.sign(g), rtol=2e-5)


def test_the_rate_of_adagrad_only_falls(optimizers):
    gradients = np.random.default_rng(0).normal(size=200)
    effective = -updates(make(optimizers, "adagrad"), gradients) / gradients
    assert (np.diff(effective) < 0).all() and effective[-1] < 0.1 * effective[0]
    constant = -updates(make(optimizers, "adagrad"), np.ones(400))  # falls as 1 / sqrt(t)
    np.testing.assert_allclose(constant[399] / constant[99], 0.5, rtol=1e-3)


def test_the_rate_of_rmsprop_recovers(optimizers):
    gradients = np.concatenate([np.full(50, 10.0), np.full(100, 0.1)])
    effective = -updates(make(optimizers, "rmsprop"), gradients) / gradients
    assert effective[-1] > 50 * effective[49]


@pytest.mark.parametrize("name", ["rmsprop", "adadelta"])
def test_rmsprop_and_adadelta_still_have_a_rate(optimizers, name):
    gradients = np.random.default_rng(0).normal(size=20)
    once, twice = (updates(make(optimizers, name, rate), gradients) for rate in (0.1, 0.2))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-12)


def test_adadelta_remembers_its_updates_and_rmsprop_does_not(optimizers):
    """Scaling every gradient scales no update of RMSprop's; Adadelta's grow with the updates before, from tiny ones."""
    ones = np.ones(60)
    constant = -updates(make(optimizers, "adadelta", 1.0), ones)
    assert constant[0] < 5e-3 and (np.diff(constant) > 0).all() and constant[-1] > 1.3 * constant[0]
    settled = -updates(make(optimizers, "rmsprop", 1.0), ones)
    np.testing.assert_allclose(settled[-1], 1, rtol=1e-2)
    np.testing.assert_allclose(updates(make(optimizers, "rmsprop", 1.0), 100 * ones), -settled, rtol=1e-6)
