"""Activations: values against PyTorch and formulas in NumPy, slopes against jax.grad, and what they are known for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dlfx.ops.activations import ACTIVATIONS, JOINT, RRELU, randomized_leaky_relu
from dlfx.types import UserError
from tests.compiling import quick

S = special.expit
Z = np.concatenate([np.linspace(-7, 7, 141), [-30.0, 30.0, 1e-3, -0.299, 0.301]])

IN_PYTORCH = {
    "sigmoid": "Sigmoid()", "hard_sigmoid": "Hardsigmoid()", "tanh": "Tanh()", "hard_tanh": "Hardtanh()",
    "softsign": "Softsign()", "relu": "ReLU()", "relu6": "ReLU6()", "leaky_relu": "LeakyReLU()",
    "prelu": "PReLU().double()", "rrelu": "RReLU().eval()", "threshold": "Threshold(1, 0)", "elu": "ELU()",
    "selu": "SELU()", "celu": "CELU(2.0)", "softplus": "Softplus(threshold=100)", "log_sigmoid": "LogSigmoid()",
    "silu": "SiLU()", "hard_silu": "Hardswish()", "gelu": "GELU()", "gelu_tanh": "GELU('tanh')", "mish": "Mish()",
    "hard_shrink": "Hardshrink()", "soft_shrink": "Softshrink()", "tanh_shrink": "Tanhshrink()",
}  # fmt: skip
FORMULAS = {
    "identity": lambda z: z,
    "step": lambda z: np.heaviside(z, 1),
    "sign": lambda z: (z > 0) * 1.0 - (z < 0),
    "sparse_sigmoid": lambda z: np.clip((z + 1) / 2, 0, 1),
    "complementary_log_log": lambda z: 1 - np.exp(-np.exp(z)),
    "lecun_tanh": lambda z: 1.7159 * (2 * S(4 / 3 * z) - 1),
    "bipolar_sigmoid": lambda z: 2 * S(z) - 1,
    "arctan": lambda z: np.angle(1 + 1j * z),
    "isru": lambda z: np.sin(np.arctan(z)),
    "sqnl": lambda z: np.piecewise(
        z, [z > 2, (z >= 0) & (z <= 2), (z >= -2) & (z < 0)], [1, lambda z: z - z**2 / 4, lambda z: z + z**2 / 4, -1]
    ),
    "square_relu": lambda z: np.where(z > 0, z**2, 0),
    "absolute": lambda z: np.where(z < 0, -z, z),
    "isrlu": lambda z: np.where(z < 0, z / np.sqrt(1 + z**2), z),
    "squareplus": lambda z: (z + np.sqrt(z**2 + 4)) / 2,
    "sparse_plus": lambda z: np.piecewise(z, [z <= -1, z >= 1], [0, lambda z: z, lambda z: (z + 1) ** 2 / 4]),
    "quick_gelu": lambda z: z / (1 + np.exp(-1.702 * z)),
    "serf": lambda z: z * special.erf(np.logaddexp(0, z)),
    "elish": lambda z: np.where(z > 0, z, np.expm1(z)) * S(z),
    "bent_identity": lambda z: (np.hypot(z, 1) - 1) / 2 + z,
    "arsinh": lambda z: np.log(z + np.sqrt(z**2 + 1)),
    "soft_exponential": lambda z: (np.exp(z / 2) - 1) / 0.5 + 0.5,
    "sine": lambda z: np.cos(z - np.pi / 2),
    "snake": lambda z: z + (1 - np.cos(2 * z)) / 2,
    "sinc": lambda z: special.spherical_jn(0, abs(z)),
    "gaussian": lambda z: stats.norm.pdf(z, scale=0.5**0.5) * np.sqrt(np.pi),
}


@pytest.fixture(scope="module")
def told():
    """By name: the values, slopes and exact derivatives at Z, in float64."""
    with jax.enable_x64(True):

        @quick
        def run(z):
            return {
                name: (a := f.value(z), f.slope(z, a), jax.grad(lambda z, f=f: f.value(z).sum())(z))
                for name, f in ACTIVATIONS.items()
            }

        return jax.tree.map(np.asarray, run(jnp.asarray(Z)))


def test_values_are_their_formulas(told):
    assert set(FORMULAS) == set(ACTIVATIONS) - set(IN_PYTORCH) and len(ACTIVATIONS) > 40
    with np.errstate(over="ignore"):
        for name, formula in FORMULAS.items():
            np.testing.assert_allclose(told[name][0], formula(Z), rtol=1e-9, atol=1e-13, err_msg=name)


def test_values_and_slopes_equal_pytorch(told):
    torch = pytest.importorskip("torch")
    for name, layer in IN_PYTORCH.items():
        z = torch.tensor(Z, requires_grad=True)
        a = eval(f"torch.nn.{layer}", {"torch": torch})(z)
        a.sum().backward()
        value, slope, _ = told[name]
        np.testing.assert_allclose(value, a.detach().numpy(), rtol=1e-9, atol=1e-13, err_msg=name)
        smooth = ~np.isin(Z, ACTIVATIONS[name].kinks)
        np.testing.assert_allclose(slope[smooth], z.grad.numpy()[smooth], rtol=1e-7, atol=1e-13, err_msg=name)


def test_slopes_are_the_derivatives_and_at_kinks_lie_between_those_of_both_sides(told):
    for name, f in ACTIVATIONS.items():
        _, slope, exact = told[name]
        smooth = ~np.isin(Z, f.kinks)
        np.testing.assert_allclose(slope[smooth], exact[smooth], rtol=1e-9, atol=1e-13, err_msg=name)
        for kink in f.kinks:
            before, at, after = np.array([kink - 1e-3, kink, kink + 1e-3], np.float32)
            left, middle, right = (float(f.slope(z, f.value(z))) for z in map(jnp.float32, (before, at, after)))
            assert min(left, right) - 2e-3 <= middle <= max(left, right) + 2e-3, name
            jumps = abs(f.value(jnp.float32(after)) - f.value(jnp.float32(before))) > 0.1
            assert jumps or abs(left - right) > 0.05, f"{name} has no kink at {kink}"


def test_the_slope_that_is_taken_at_a_kink():
    for name, kink, taken in (
        ("relu", 0, 0), ("relu6", 0, 0), ("relu6", 6, 0), ("leaky_relu", 0, 1), ("absolute", 0, 0), ("hard_tanh", 1, 0),
        ("step", 0, 0), ("sign", 0, 0),
    ):  # fmt: skip
        f, z = ACTIVATIONS[name], jnp.float32(kink)
        assert f.slope(z, f.value(z)) == taken, name


def test_types_are_kept_and_nothing_is_nan_far_out():
    @quick
    def run(z):
        return {name: (a := f.value(z), f.slope(z, a)) for name, f in ACTIVATIONS.items()}

    for name, pair in run(jnp.array([-90.0, -20.0, -0.5, 0.0, 1.0, 20.0, 90.0])).items():
        assert all(array.dtype == jnp.float32 and np.isfinite(array).all() for array in pair), name
    for name, pair in jax.eval_shape(run, jnp.ones(3, jnp.bfloat16)).items():
        assert {array.dtype for array in pair} == {jnp.dtype("bfloat16")}, name


def test_sigmoid_and_tanh(told):
    sigmoid, slope, _ = told["sigmoid"]
    assert slope.max() == 0.25 == slope[np.argmin(abs(Z))] and (slope[abs(Z) > 0.05] < 0.25).all()
    tanh = ACTIVATIONS["tanh"].value
    z = jnp.linspace(-5, 5, 41)
    np.testing.assert_allclose(tanh(z), 2 * ACTIVATIONS["sigmoid"].value(2 * z) - 1, atol=1e-6)
    for name in ("sigmoid", "tanh", "softsign", "arctan", "isru"):  # they saturate; ReLU does on one side alone
        _, slope, _ = told[name]
        assert (slope[abs(Z) == 30] < 1.2e-3).all(), name
    assert told["relu"][1][Z == 30] == 1 and told["relu"][1][Z == -30] == 0


def test_the_step_is_not_the_sign():
    """Heaviside's step is 0 or 1; the sign -1, 0 or 1, so that it is twice the step less 1 everywhere but at 0."""
    z = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(ACTIVATIONS["step"].value(z), [0, 1, 1])
    np.testing.assert_array_equal(ACTIVATIONS["sign"].value(z), [-1, 0, 1])


def test_a_rectifier_passes_gradients_of_active_units_alone():
    """As if there were no activation, where z > 0 and nowhere else. A unit that is never active is dead for good."""
    x = jax.random.normal(jax.random.key(0), (64, 5))

    def gradient(name, bias):
        return jax.grad(lambda w: ACTIVATIONS[name].value(x @ w + bias).sum())(jnp.ones(5))

    active = x @ jnp.ones(5) > 0
    assert 0 < active.sum() < 64
    np.testing.assert_allclose(gradient("relu", 0.0), (x * active[:, None]).sum(0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(gradient("relu", 0.0), gradient("identity", 0.0))
    np.testing.assert_array_equal(gradient("relu", -100.0), np.zeros(5))
    np.testing.assert_allclose(gradient("leaky_relu", -100.0), 0.01 * x.sum(0), rtol=1e-4)


def test_the_random_slope_has_the_mean_of_the_fixed_one():
    z = -jnp.ones(20_000)
    drawn = -randomized_leaky_relu(jax.random.key(0), z)
    assert drawn.min() >= 1 / 8 and drawn.max() <= 1 / 3
    assert abs(drawn.mean() - RRELU) < 4 * (1 / 3 - 1 / 8) / np.sqrt(12 * 20_000)
    np.testing.assert_array_equal(randomized_leaky_relu(jax.random.key(0), -z), -z)


def test_softmax():
    with jax.enable_x64(True):
        np.testing.assert_allclose(JOINT["softmax"](jnp.array([2.0, 30.0])), [6.914400106935423e-13, 1], rtol=1e-12)
        z = jnp.array([0.3, -1.2, 2.0])
        s = JOINT["softmax"](z)
        np.testing.assert_allclose(jax.jacobian(JOINT["softmax"])(z), np.diag(s) - np.outer(s, s), atol=1e-15)
        np.testing.assert_allclose(JOINT["softmin"](z), s[::1] * 0 + np.exp(-z) / np.exp(-z).sum(), rtol=1e-12)
        np.testing.assert_allclose(JOINT["softmax"](z + 7), s, rtol=1e-12)
        np.testing.assert_allclose(JOINT["log_softmax"](z), np.log(s), rtol=1e-12)


def test_gated_units():
    z = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    content, gate = z[:, :4], z[:, 4:]
    for name, expected in {
        "glu": content * S(gate),
        "reglu": content * np.maximum(gate, 0),
        "geglu": content * gate * stats.norm.cdf(gate),
        "swiglu": content * gate * S(gate),
        "maxout": np.maximum(content, gate),
        "crelu": np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1),
    }.items():
        np.testing.assert_allclose(JOINT[name](z), expected, rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.raises(UserError, match="even number of channels"):
        JOINT["glu"](z[:, :7])
