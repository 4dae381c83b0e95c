"""Activation functions, each with its derivative in closed form.

`kinks` are the points without a derivative, where the one-sided ones differ or the function jumps. There `slope` takes
a value between those of both sides: where a function is clipped that of the flat side (ReLU'(0) = 0, ReLU6'(6) = 0),
for the leaky ones that of the right side (1 at 0), for |z| 0. `jax.grad` may take another one between.

Parameters are the usual ones and stand in the formula, where S is the sigmoid and P the distribution of N(0, 1).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import erf, erfc

from dlfx.types import Array, Key, UserError


class Activation(NamedTuple):
    """A nonlinearity.

    Attributes:
      value: of z, elementwise.
      slope: (z, a), its derivative at z, where `a = value(z)` is known.
      formula: as text.
      kinks: where it has no derivative.
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]
    formula: str = ""
    kinks: tuple[float, ...] = ()


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
RRELU = (1 / 8 + 1 / 3) / 2  # the mean slope, which takes the place of the random one after training

sigmoid, softplus = jax.nn.sigmoid, jax.nn.softplus


def randomized_leaky_relu(key: Key, z: Array, lower: float = 1 / 8, upper: float = 1 / 3) -> Array:
    """Leaky ReLU with a slope below 0 that is drawn anew for every unit, for training.

    Source: Xu et al. 2015, Empirical Evaluation of Rectified Activations (arXiv:1505.00853), section 2.4.
    """
    return jnp.where(z >= 0, z, z * jax.random.uniform(key, z.shape, z.dtype, lower, upper))


def _where(condition: Array, z: Array) -> Array:
    return condition.astype(z.dtype)


def _leaky(slope: float, formula: str) -> Activation:
    return Activation(
        lambda z: jax.nn.leaky_relu(z, slope), lambda z, a: jnp.where(z >= 0, 1, slope).astype(z.dtype), formula, (0.0,)
    )


def _distribution(z: Array) -> Array:
    return erfc(-z / math.sqrt(2)) / 2


def _density(z: Array) -> Array:
    return jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gated(gate: Callable[[Array], Array], slope: Callable[[Array, Array], Array], formula: str) -> Activation:
    """`z g(z)`, from g and its derivative by (z, g(z))."""

    def total(z: Array, a: Array) -> Array:
        g = gate(z)
        return g + z * slope(z, g)

    return Activation(lambda z: z * gate(z), total, formula)


def _gelu_tanh_slope(z: Array, a: Array) -> Array:
    rate = math.sqrt(2 / math.pi)
    t = jnp.tanh(rate * (z + 0.044715 * z**3))
    return (1 + t) / 2 + z / 2 * (1 - t * t) * rate * (1 + 3 * 0.044715 * z * z)


def _elish(z: Array) -> Array:
    return jnp.where(z > 0, z, jnp.expm1(jnp.where(z > 0, 0, z))) * sigmoid(z)


def _elish_slope(z: Array, a: Array) -> Array:
    s = sigmoid(z)
    return jnp.where(z > 0, s, jnp.exp(jnp.minimum(z, 0)) * s) + a * (1 - s)


def _sinc_slope(z: Array, a: Array) -> Array:
    near = abs(z) < 0.3  # where the difference of cos(z) and sin(z) / z would lose its digits
    series = z * (-1 / 3 + z**2 * (1 / 30 + z**2 * (-1 / 840 + z**2 * (1 / 45360 - z**2 / 3991680))))
    return jnp.where(near, series, (jnp.cos(z) - a) / jnp.where(near, 1, z))


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda z: z, lambda z, a: jnp.ones_like(z), "z"),
    # Thresholds. The step is Heaviside's, 0 and 1; the sign is -1, 0 and 1. Neither lets a gradient through.
    "step": Activation(lambda z: _where(z >= 0, z), lambda z, a: jnp.zeros_like(z), "1 if z >= 0, else 0", (0.0,)),
    "sign": Activation(jnp.sign, lambda z, a: jnp.zeros_like(z), "-1, 0 or 1", (0.0,)),
    # From one level to another.
    "sigmoid": Activation(sigmoid, lambda z, a: a * (1 - a), "1 / (1 + exp(-z))"),
    "hard_sigmoid": Activation(
        jax.nn.hard_sigmoid, lambda z, a: _where(abs(z) < 3, z) / 6, "clip((z + 3) / 6, 0, 1)", (-3.0, 3.0)
    ),
    "sparse_sigmoid": Activation(
        jax.nn.sparse_sigmoid, lambda z, a: _where(abs(z) < 1, z) / 2, "clip((z + 1) / 2, 0, 1)", (-1.0, 1.0)
    ),
    "complementary_log_log": Activation(
        lambda z: -jnp.expm1(-jnp.exp(z)), lambda z, a: jnp.exp(z - jnp.exp(z)), "1 - exp(-exp(z))"
    ),
    "tanh": Activation(jnp.tanh, lambda z, a: 1 - a**2, "tanh(z)"),
    "lecun_tanh": Activation(
        lambda z: 1.7159 * jnp.tanh(2 / 3 * z), lambda z, a: 2 / 3 * (1.7159 - a**2 / 1.7159), "1.7159 tanh(2 z / 3)"
    ),
    "bipolar_sigmoid": Activation(lambda z: jnp.tanh(z / 2), lambda z, a: (1 - a**2) / 2, "2 S(z) - 1 = tanh(z / 2)"),
    "hard_tanh": Activation(jax.nn.hard_tanh, lambda z, a: _where(abs(z) < 1, z), "clip(z, -1, 1)", (-1.0, 1.0)),
    "arctan": Activation(jnp.arctan, lambda z, a: 1 / (1 + z * z), "arctan(z)"),
    "softsign": Activation(jax.nn.soft_sign, lambda z, a: 1 / (1 + abs(z)) ** 2, "z / (1 + |z|)"),
    "isru": Activation(lambda z: z * jax.lax.rsqrt(1 + z * z), lambda z, a: (1 + z * z) ** -1.5, "z / sqrt(1 + z^2)"),
    "sqnl": Activation(
        lambda z: jnp.where(abs(z) < 2, z - z * abs(z) / 4, jnp.sign(z)),
        lambda z, a: jnp.maximum(1 - abs(z) / 2, 0),
        "z - z |z| / 4 within [-2, 2], else -1 or 1",
    ),
    # Rectifiers.
    "relu": Activation(jax.nn.relu, lambda z, a: _where(z > 0, z), "max(z, 0)", (0.0,)),
    "relu6": Activation(jax.nn.relu6, lambda z, a: _where((z > 0) & (z < 6), z), "clip(z, 0, 6)", (0.0, 6.0)),
    "leaky_relu": _leaky(0.01, "z if z >= 0, else 0.01 z"),
    "prelu": _leaky(0.25, "z if z >= 0, else a z, a learned from 1/4 on"),
    "rrelu": _leaky(RRELU, "z if z >= 0, else 11/48 z, random in training"),
    "threshold": Activation(
        lambda z: jnp.where(z > 1, z, 0), lambda z, a: _where(z > 1, z), "z if z > 1, else 0", (1.0,)
    ),
    "square_relu": Activation(lambda z: jnp.maximum(z, 0) ** 2, lambda z, a: 2 * jnp.maximum(z, 0), "max(z, 0)^2"),
    "absolute": Activation(jnp.abs, lambda z, a: jnp.sign(z), "|z|", (0.0,)),
    "elu": Activation(jax.nn.elu, lambda z, a: jnp.where(z > 0, 1, a + 1), "z if z > 0, else exp(z) - 1"),
    "selu": Activation(
        jax.nn.selu,
        lambda z, a: jnp.where(z > 0, SELU_SCALE, a + SELU_SCALE * SELU_ALPHA),
        "1.0507 (z if z > 0, else 1.6733 (exp(z) - 1))",
        (0.0,),
    ),
    "celu": Activation(
        lambda z: jax.nn.celu(z, 2.0),
        lambda z, a: jnp.exp(jnp.minimum(z, 0) / 2),
        "z if z > 0, else 2 (exp(z / 2) - 1)",
    ),
    "isrlu": Activation(
        lambda z: jnp.where(z >= 0, z, z * jax.lax.rsqrt(1 + z * z)),
        lambda z, a: (1 + jnp.minimum(z, 0) ** 2) ** -1.5,
        "z if z >= 0, else z / sqrt(1 + z^2)",
    ),
    "softplus": Activation(softplus, lambda z, a: sigmoid(z), "log(1 + exp(z))"),
    "squareplus": Activation(
        jax.nn.squareplus, lambda z, a: (1 + z * jax.lax.rsqrt(z * z + 4)) / 2, "(z + sqrt(z^2 + 4)) / 2"
    ),
    "sparse_plus": Activation(
        jax.nn.sparse_plus, lambda z, a: jnp.clip((z + 1) / 2, 0, 1), "(z + 1)^2 / 4 within [-1, 1], else max(z, 0)"
    ),
    "log_sigmoid": Activation(jax.nn.log_sigmoid, lambda z, a: sigmoid(-z), "log S(z)"),
    # z times a gate of z.
    "silu": _gated(sigmoid, lambda z, g: g * (1 - g), "z S(z)"),
    "quick_gelu": _gated(lambda z: sigmoid(1.702 * z), lambda z, g: 1.702 * g * (1 - g), "z S(1.702 z)"),
    "hard_silu": Activation(
        jax.nn.hard_silu,
        lambda z, a: jax.nn.hard_sigmoid(z) + z * _where(abs(z) < 3, z) / 6,
        "z clip((z + 3) / 6, 0, 1)",
        (-3.0, 3.0),
    ),
    "gelu": _gated(_distribution, lambda z, g: _density(z), "z P(z)"),
    "gelu_tanh": Activation(
        lambda z: jax.nn.gelu(z, approximate=True),
        _gelu_tanh_slope,
        "z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2",
    ),
    "mish": _gated(lambda z: jnp.tanh(softplus(z)), lambda z, g: (1 - g * g) * sigmoid(z), "z tanh(log(1 + exp(z)))"),
    "serf": _gated(
        lambda z: erf(softplus(z)),
        lambda z, g: 2 / math.sqrt(math.pi) * jnp.exp(-(softplus(z) ** 2)) * sigmoid(z),
        "z erf(log(1 + exp(z)))",
    ),
    "elish": Activation(_elish, _elish_slope, "S(z) (z if z > 0, else exp(z) - 1)"),
    # Shrinkage.
    "hard_shrink": Activation(
        lambda z: jnp.where(abs(z) > 0.5, z, 0),
        lambda z, a: _where(abs(z) > 0.5, z),
        "z if |z| > 1/2, else 0",
        (-0.5, 0.5),
    ),
    "soft_shrink": Activation(
        lambda z: z - jnp.clip(z, -0.5, 0.5),
        lambda z, a: _where(abs(z) > 0.5, z),
        "sign(z) max(|z| - 1/2, 0)",
        (-0.5, 0.5),
    ),
    "tanh_shrink": Activation(lambda z: z - jnp.tanh(z), lambda z, a: (z - a) ** 2, "z - tanh(z)"),
    # Unbounded on both sides.
    "bent_identity": Activation(
        lambda z: (jnp.sqrt(z * z + 1) - 1) / 2 + z,
        lambda z, a: z * jax.lax.rsqrt(z * z + 1) / 2 + 1,
        "(sqrt(z^2 + 1) - 1) / 2 + z",
    ),
    "arsinh": Activation(jnp.arcsinh, lambda z, a: jax.lax.rsqrt(1 + z * z), "arsinh(z)"),
    "soft_exponential": Activation(
        lambda z: 2 * jnp.expm1(z / 2) + 0.5, lambda z, a: jnp.exp(z / 2), "(exp(a z) - 1) / a + a, a = 1/2"
    ),
    # Waves and bumps.
    "sine": Activation(jnp.sin, lambda z, a: jnp.cos(z), "sin(z)"),
    "snake": Activation(lambda z: z + jnp.sin(z) ** 2, lambda z, a: 1 + jnp.sin(2 * z), "z + sin(z)^2"),
    "sinc": Activation(lambda z: jnp.sinc(z / jnp.pi), _sinc_slope, "sin(z) / z, 1 at 0"),
    "gaussian": Activation(lambda z: jnp.exp(-z * z), lambda z, a: -2 * z * a, "exp(-z^2)"),
}


def _halves(gate: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def value(z: Array) -> Array:
        if z.shape[-1] % 2:
            raise UserError(f"a gated unit takes an even number of channels, half of them gates; got {z.shape[-1]}")
        content, gates = jnp.split(z, 2, -1)
        return content * gate(gates)

    return value


# Of a whole vector, the last axis: they mix its units, and some have fewer outputs than inputs.
JOINT: dict[str, Callable[[Array], Array]] = {
    "softmax": jax.nn.softmax,  # exp(z_i) / sum_j exp(z_j)
    "softmin": lambda z: jax.nn.softmax(-z),
    "log_softmax": jax.nn.log_softmax,
    "glu": _halves(sigmoid),  # the first half times a function of the second (Dauphin et al. 2016, arXiv:1612.08083)
    "reglu": _halves(jax.nn.relu),  # those below: Shazeer 2020 (arXiv:2002.05202), equation 5
    "geglu": _halves(lambda z: z * _distribution(z)),
    "swiglu": _halves(jax.nn.silu),
    "maxout": lambda z: jnp.maximum(*jnp.split(z, 2, -1)),  # of pairs (Goodfellow et al. 2013, arXiv:1302.4389)
    "crelu": lambda z: jax.nn.relu(jnp.concatenate([z, -z], -1)),  # (Shang et al. 2016, arXiv:1603.05201)
}
