"""The backward pass by hand is the derivative: against autodiff, finite differences, NumPy loops and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util
from scipy import optimize, special

from dlfx.ops import backprop
from dlfx.ops.backprop import LOSSES, OUTPUTS, Layer
from dlfx.types import UserError
from tests.compiling import quick

ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "silu")
PAIRS = [
    ("squared", "identity"), ("squared", "sigmoid"), ("squared", "tanh"), ("squared", "softplus"),
    ("cross_entropy", "softmax"), ("sigmoid_cross_entropy", "sigmoid"),
]  # fmt: skip


def example(sizes, batch=7, dtype=np.float64, seed=0):
    """(layers, inputs, targets that are distributions)."""
    rng = np.random.default_rng(seed)
    layers = tuple(
        Layer(jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(m), dtype), jnp.asarray(rng.normal(size=n) * 0.3, dtype))
        for m, n in itertools.pairwise(sizes)
    )
    y = np.eye(sizes[-1])[rng.integers(sizes[-1], size=batch)]
    return layers, jnp.asarray(rng.normal(size=(batch, sizes[0])), dtype), jnp.asarray(y, dtype)


def hand(layers, x, y, activation, output, loss):
    trace = backprop.forward(layers, x, activation, output)
    delta = backprop.deltas(layers, trace, y, activation, output, loss)
    return jax.tree.map(lambda g: g / len(x), backprop.gradient(trace, delta))


def mean_loss(layers, x, y, activation, output, loss):
    trace = backprop.forward(layers, x, activation, output)
    return LOSSES[loss].value(trace.before[-1], trace.after[-1], y).mean()


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("activation", "pair"), [(a, PAIRS[i % len(PAIRS)]) for i, a in enumerate(ACTIVATIONS)])
def test_the_hand_written_gradient_is_that_of_autodiff(activation, pair, dtype):
    loss, output = pair
    with jax.enable_x64(True):
        given = example((5, 8, 6, 4, 3), dtype=dtype)
        ours = flat(quick(lambda *a: hand(*a, activation, output, loss))(*given))
        theirs = flat(quick(jax.grad(lambda *a: mean_loss(*a, activation, output, loss)))(*given))
    assert ours.dtype == theirs.dtype == dtype
    assert np.linalg.norm(ours - theirs) < {"float32": 1e-6, "float64": 1e-14}[dtype] * np.linalg.norm(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol={"float32": 1e-6, "float64": 1e-12}[dtype])


@pytest.mark.parametrize(("loss", "output"), PAIRS)
@pytest.mark.parametrize("sizes", [(4, 2), (3, 1), (4, 5, 2), (3, 4, 4, 4, 4, 4, 2)])
def test_any_loss_and_any_depth(loss, output, sizes):
    if sizes[-1] == 1 and loss == "cross_entropy":
        return
    with jax.enable_x64(True):
        given = example(sizes)
        ours = flat(hand(*given, "tanh", output, loss))
        theirs = flat(quick(jax.grad(lambda *a: mean_loss(*a, "tanh", output, loss)))(*given))
    assert np.linalg.norm(ours - theirs) < 1e-14 * np.linalg.norm(theirs)


def test_the_notation_is_from_unit_a_to_unit_b():
    """`kernel[a, b]` is the weight w^k_{ab}; every sum written as a loop."""
    with jax.enable_x64(True):
        layers, x, y = example((3, 4, 2), batch=2)
        trace = backprop.forward(layers, x, "sigmoid", "softmax")
        ours = hand(layers, x, y, "sigmoid", "softmax", "cross_entropy")
    x, y, trace = jax.tree.map(np.asarray, (x, y, trace))
    wanted = [Layer(np.zeros(layer.kernel.shape), np.zeros(layer.bias.shape)) for layer in layers]
    (w1, b1), (w2, b2) = [(np.asarray(layer.kernel), np.asarray(layer.bias)) for layer in layers]
    for i in range(2):
        z1 = [sum(w1[a, b] * x[i, a] for a in range(3)) + b1[b] for b in range(4)]
        a1 = [1 / (1 + np.exp(-z)) for z in z1]
        z2 = [sum(w2[a, b] * a1[a] for a in range(4)) + b2[b] for b in range(2)]
        a2 = np.exp(z2) / np.exp(z2).sum()
        np.testing.assert_allclose(trace.before[0][i], z1, rtol=1e-12)
        np.testing.assert_allclose(trace.after[1][i], a1, rtol=1e-12)
        np.testing.assert_allclose(trace.after[2][i], a2, rtol=1e-12)
        d2 = [a2[b] - y[i, b] for b in range(2)]
        d1 = [a1[a] * (1 - a1[a]) * sum(w2[a, b] * d2[b] for b in range(2)) for a in range(4)]
        for b in range(2):
            wanted[1].bias[b] += d2[b] / 2
            for a in range(4):
                wanted[1].kernel[a, b] += a1[a] * d2[b] / 2
        for b in range(4):
            wanted[0].bias[b] += d1[b] / 2
            for a in range(3):
                wanted[0].kernel[a, b] += x[i, a] * d1[b] / 2
    jax.tree.map(lambda ours, wanted: np.testing.assert_allclose(ours, wanted, rtol=1e-10), ours, tuple(wanted))


def test_output_derivatives():
    """Squared error `(a - y) f'(z)`; softmax and sigmoid with their cross-entropies `a - y`."""
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 3)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0]]
    s = special.expit(z)
    got = LOSSES["squared"].delta(z, s, y, OUTPUTS["sigmoid"])
    np.testing.assert_allclose(got, (s - y) * s * (1 - s), rtol=1e-5, atol=1e-7)
    got = LOSSES["squared"].delta(z, np.tanh(z), y, OUTPUTS["tanh"])
    np.testing.assert_allclose(got, (np.tanh(z) - y) / np.cosh(z) ** 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(LOSSES["sigmoid_cross_entropy"].delta(z, s, y, OUTPUTS["sigmoid"]), s - y)
    p = special.softmax(z, -1)
    np.testing.assert_allclose(LOSSES["cross_entropy"].delta(z, p, y, OUTPUTS["softmax"]), p - y)


def test_losses_are_their_formulas():
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 3)), np.eye(3)[[0, 2, 1, 1, 0]]
    s, p = special.expit(z), special.softmax(z, -1)
    np.testing.assert_allclose(
        LOSSES["squared"].value(z, s, y), [0.5 * sum((a - b) ** 2) for a, b in zip(s, y, strict=True)]
    )
    wanted = -(y * np.log(p)).sum(-1)
    np.testing.assert_allclose(LOSSES["cross_entropy"].value(z, p, y), wanted, rtol=1e-5)
    wanted = -(y * np.log(s) + (1 - y) * np.log(1 - s)).sum(-1)
    np.testing.assert_allclose(LOSSES["sigmoid_cross_entropy"].value(z, s, y), wanted, rtol=1e-5)
    huge = np.array([[1e4, -1e4]], np.float32)
    for name in ("cross_entropy", "sigmoid_cross_entropy"):
        assert np.isfinite(LOSSES[name].value(huge, special.softmax(huge, -1), np.array([[0.0, 1.0]]))).all()


def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        layers, x, y = example((3, 4, 2), batch=3)
        at, unflatten = flatten_util.ravel_pytree(layers)
        value = quick(lambda layers: mean_loss(layers, x, y, "softplus", "softmax", "cross_entropy"))
        steep = optimize.approx_fprime(np.asarray(at), lambda v: float(value(unflatten(jnp.asarray(v)))), 1e-7)
        ours = flat(hand(layers, x, y, "softplus", "softmax", "cross_entropy"))
    np.testing.assert_allclose(ours, steep, rtol=1e-4, atol=2e-7)


def test_the_gradient_points_where_the_loss_rises_most():
    """The derivative along a unit vector u is g.u: |g| along the gradient, -|g| against it, less along any other."""
    with jax.enable_x64(True):
        layers, x, y = example((3, 5, 2))
        g = hand(layers, x, y, "tanh", "softmax", "cross_entropy")
        norm = np.linalg.norm(flat(g))

        @quick
        def along(direction):
            def at(t):
                moved = jax.tree.map(lambda p, d: p + t * d, layers, direction)
                return mean_loss(moved, x, y, "tanh", "softmax", "cross_entropy")

            return (at(1e-5) - at(-1e-5)) / 2e-5

        unit = jax.tree.map(lambda leaf: leaf / norm, g)
        np.testing.assert_allclose(along(unit), norm, rtol=1e-7)
        np.testing.assert_allclose(along(jax.tree.map(jnp.negative, unit)), -norm, rtol=1e-7)
        rng = np.random.default_rng(0)
        for _ in range(20):
            u = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), layers)
            length = np.linalg.norm(flat(u))
            rise = float(along(u)) / length
            np.testing.assert_allclose(rise, flat(u) @ flat(g) / length, rtol=1e-5, atol=1e-8)
            assert abs(rise) < norm


def test_norms_of_single_examples_come_from_the_same_pass():
    with jax.enable_x64(True):
        layers, x, y = example((4, 6, 3))
        trace = backprop.forward(layers, x, "relu", "softmax")
        delta = backprop.deltas(layers, trace, y, "relu", "softmax", "cross_entropy")
        norms = backprop.square_norms(trace, delta)
        one = quick(jax.grad(lambda *a: mean_loss(*a, "relu", "softmax", "cross_entropy")))
        for i in range(len(x)):
            wanted = flat(one(layers, x[i : i + 1], y[i : i + 1]))
            np.testing.assert_allclose(norms[i], wanted @ wanted, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_the_variance_of_a_batch_is_exact(batch):
    """Over every batch that can be drawn from 5 examples, in order or not, with and without replacement."""
    with jax.enable_x64(True):
        layers, x, y = example((3, 4, 2), batch=5)
        trace = backprop.forward(layers, x, "tanh", "softmax")
        delta = backprop.deltas(layers, trace, y, "tanh", "softmax", "cross_entropy")
        single = np.stack(
            [flat(hand(layers, x[i : i + 1], y[i : i + 1], "tanh", "softmax", "cross_entropy")) for i in range(5)]
        )
        mean_square, mean = float(backprop.square_norms(trace, delta).mean()), single.mean(0)
    for replace, draws in (
        (True, itertools.product(range(5), repeat=batch)),
        (False, itertools.combinations(range(5), batch)),
    ):
        found = np.mean([((single[list(draw)].mean(0) - mean) ** 2).sum() for draw in draws])
        told = backprop.batch_variance(mean_square, mean @ mean, 5, batch, replace)
        np.testing.assert_allclose(told, found, rtol=1e-10, atol=1e-18)
        if replace:
            np.testing.assert_allclose(told * batch, np.trace(np.cov(single.T, bias=True)), rtol=1e-10)


def test_initialisers_have_their_variances():
    key = jax.random.key(0)
    for name, variance in (("xavier", 2 / (300 + 500)), ("he", 2 / 300), ("normal:0.01", 1e-4), ("normal:1", 1.0)):
        kernel = np.asarray(backprop.initial(key, (300, 500), name)[0].kernel)
        np.testing.assert_allclose(kernel.var(), variance, rtol=0.02)  # 150,000 draws: a standard error of 0.4 %
        assert abs(kernel.mean()) < 4 * np.sqrt(variance / kernel.size)
        np.testing.assert_allclose((kernel**4).mean() / kernel.var() ** 2, 3, rtol=0.03)  # normal, and not cut off
    first, second = backprop.initial(key, (20, 20, 20))
    assert not np.allclose(first.kernel, second.kernel) and not first.bias.any()


def test_parameter_counts():
    def count(*sizes):
        return sum(leaf.size for leaf in jax.tree.leaves(backprop.initial(jax.random.key(0), sizes)))

    assert count(128 * 128, 2) == 32_770
    assert count(784, 128, 64, 10) == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10


def test_linear_layers_alone_are_one_linear_layer():
    with jax.enable_x64(True):
        layers, x, _ = example((4, 6, 5, 3))
        deep = backprop.forward(layers, x, "identity", "identity").after[-1]
        kernel = layers[0].kernel @ layers[1].kernel @ layers[2].kernel
        bias = (layers[0].bias @ layers[1].kernel + layers[1].bias) @ layers[2].kernel + layers[2].bias
        np.testing.assert_allclose(deep, x @ kernel + bias, rtol=1e-12)


def test_bfloat16_activations_keep_gradients_in_the_type_of_the_parameters():
    net = backprop.network((4, 8, 3), dtype=jnp.bfloat16)
    exact = backprop.network((4, 8, 3))
    layers, x = net.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (16, 2, 2, 1))
    labels = jnp.arange(16) % 3
    trace = net.forward(layers, x)
    assert trace.after[1].dtype == jnp.bfloat16 and trace.before[-1].dtype == jnp.float32
    got = net.backward(layers, trace, labels)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    wanted = flat(exact.backward(layers, exact.forward(layers, x), labels))
    assert np.linalg.norm(flat(got) - wanted) < 0.02 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, "unknown activation 'rleu'; did you mean relu"),
        ({"loss": "square"}, "unknown loss 'square'; did you mean squared"),
        ({"output": "softmx"}, "unknown activation of outputs 'softmx'; did you mean softmax"),
        ({"output": "sigmoid"}, "outputs of sigmoid do not go with the loss cross_entropy; it takes softmax"),
        ({"loss": "squared", "output": "softmax"}, "do not go with the loss squared"),
        ({"init": "xaver"}, "unknown initialiser 'xaver'; did you mean xavier"),
        ({"init": "normal"}, "positive standard deviation"),
        ({"init": "normal:-1"}, "positive standard deviation"),
        ({"init": "normal:big"}, "positive standard deviation"),
        ({"sizes": (4, 0, 2)}, "widths .* are not possible"),
        ({"sizes": (4,)}, "widths .* are not possible"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        backprop.network(**{"sizes": (4, 3, 2)} | options)


def test_an_input_of_another_size():
    net = backprop.network((4, 3, 2))
    with pytest.raises(UserError, match="an input of 5 numbers does not fit the first width, 4"):
        net.forward(net.init(jax.random.key(0)), jnp.zeros((2, 5)))
