"""Forward and backward pass of a stack of dense layers, written out by hand: no automatic differentiation.

Layer k has the weights `w^k_{ab}` from unit a of layer k - 1 to unit b of layer k, `kernel[a, b]`, and computes
`z^k_b = sum_a w^k_{ab} a^{k-1}_a + b^k_b` and `a^k_b = f(z^k_b)`; `a^0` is the input.

Source: Rumelhart, Hinton and Williams 1986, Learning Representations by Back-Propagating Errors.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.ops.activations import ACTIVATIONS, Activation
from dlfx.types import Array, Key, UserError, unknown


class Layer(NamedTuple):
    """The parameters of one dense layer."""

    kernel: Array  # [in, out]
    bias: Array  # [out]


Layers = tuple[Layer, ...]


class Trace(NamedTuple):
    """What a forward pass leaves for the backward pass.

    Attributes:
      before: z of every layer, `[B, out]` each.
      after: the input `[B, in]`, then a of every layer.
    """

    before: tuple[Array, ...]
    after: tuple[Array, ...]


class Loss(NamedTuple):
    """What is minimised, one value an example.

    Attributes:
      value: (z, a, target) of the output layer, `[B, K]` each, to `[B]`.
      delta: (z, a, target, activation of the outputs) to `dL/dz [B, K]`.
      output: the activation of the outputs that belongs to it; empty where any does.
    """

    value: Callable[[Array, Array, Array], Array]
    delta: Callable[[Array, Array, Array, Activation], Array]
    output: str


def _softmax_slope(z: Array, a: Array) -> Array:
    raise UserError("softmax mixes the units, so it has no derivative unit by unit; it goes with cross_entropy alone")


OUTPUTS = ACTIVATIONS | {"softmax": Activation(jax.nn.softmax, _softmax_slope)}

# The derivative of cross-entropy by a is divided by just what the slope of the outputs multiplies it with.
LOSSES: dict[str, Loss] = {
    "squared": Loss(
        lambda z, a, y: ((a - y) ** 2).sum(-1) / 2,
        lambda z, a, y, f: (a - y) * f.slope(z, a),
        "",
    ),
    "cross_entropy": Loss(
        lambda z, a, y: -(y * jax.nn.log_softmax(z)).sum(-1),
        lambda z, a, y, f: a - y,
        "softmax",
    ),
    "sigmoid_cross_entropy": Loss(
        lambda z, a, y: (jax.nn.softplus(z) - y * z).sum(-1),
        lambda z, a, y, f: a - y,
        "sigmoid",
    ),
}


def forward(layers: Layers, x: Array, activation: str, output: str, dtype: Any = None) -> Trace:
    """Every z and every a of a stack of layers.

    Args:
      layers: the parameters.
      x: `[B, in]`.
      activation: of the hidden layers, one of `ACTIVATIONS`.
      output: of the last layer, one of `OUTPUTS`.
      dtype: to compute in; that of the parameters if None. The outputs are at least float32.

    Returns:
      The trace.
    """
    dtype = dtype or layers[0].kernel.dtype
    before: list[Array] = []
    after = [x.astype(dtype)]
    for k, layer in enumerate(layers):
        z = after[-1] @ layer.kernel.astype(dtype) + layer.bias.astype(dtype)
        last = k == len(layers) - 1
        if last:
            z = z.astype(jnp.promote_types(dtype, jnp.float32))
        before.append(z)
        after.append((OUTPUTS[output] if last else ACTIVATIONS[activation]).value(z))
    return Trace(tuple(before), tuple(after))


def deltas(layers: Layers, trace: Trace, target: Array, activation: str, output: str, loss: str) -> tuple[Array, ...]:
    """The derivative of every example's loss by every z, from the last layer back to the first.

    `delta^n` of the outputs: squared error `(a - y) f'(z)`; cross-entropy with its softmax or sigmoid `a - y`.
    `delta^k_a = f'(z^k_a) sum_b w^{k+1}_{ab} delta^{k+1}_b`.

    Args:
      layers: the parameters.
      trace: of the forward pass.
      target: `[B, K]`; for cross_entropy a distribution, so that it sums to 1.
      activation: of the hidden layers.
      output: of the last layer.
      loss: one of `LOSSES`.

    Returns:
      `[B, out]` for every layer, first layer first.
    """
    found = [LOSSES[loss].delta(trace.before[-1], trace.after[-1], target, OUTPUTS[output])]
    for k in reversed(range(len(layers) - 1)):
        slope = ACTIVATIONS[activation].slope(trace.before[k], trace.after[k + 1])
        found.append((found[-1].astype(slope.dtype) @ layers[k + 1].kernel.T.astype(slope.dtype)) * slope)
    return tuple(reversed(found))


def gradient(trace: Trace, delta: Sequence[Array]) -> Layers:
    """The derivative of the examples' summed loss by every parameter.

    `dL/dw^k_{ab} = a^{k-1}_a delta^k_b` and `dL/db^k_b = delta^k_b`, summed over the examples.

    Args:
      trace: of the forward pass.
      delta: of the backward pass, `[B, out]` each; examples with weight w have it multiplied in.

    Returns:
      Layers, at least float32.
    """
    found = []
    for a, d in zip(trace.after, delta, strict=False):
        exact = jnp.promote_types(a.dtype, jnp.float32)
        kernel = jnp.matmul(a.T, d.astype(a.dtype), preferred_element_type=exact)
        found.append(Layer(kernel, d.sum(0, dtype=exact)))
    return tuple(found)


def square_norms(trace: Trace, delta: Sequence[Array]) -> Array:
    """The squared norm of the gradient of each example alone, `[B]`, without that gradient.

    A kernel's gradient is an outer product: `|a delta^T|^2 = |a|^2 |delta|^2`.

    Source: Goodfellow 2015 (arXiv:1510.01799), section 4.
    """
    pairs = zip(trace.after, delta, strict=False)
    return jnp.stack([((a**2).sum(-1) + 1) * (d**2).sum(-1) for a, d in pairs]).sum(0)


def batch_variance(mean_square: Any, square_mean: Any, size: int, batch: int, replace: bool = False) -> Any:
    """The trace of the covariance of a batch's mean gradient around the gradient of the whole set.

    `tr(S) / B`, times `(n - B) / (n - 1)` if no example is drawn twice, with `tr(S) = mean |g_i|^2 - |mean g_i|^2`.

    Args:
      mean_square: the mean over the set of the squared norms of its examples' gradients.
      square_mean: the squared norm of their mean, the gradient of the whole set.
      size: n, the examples of the set.
      batch: B, the examples of a batch.
      replace: whether examples are drawn with replacement.

    Source: Cochran 1977, Sampling Techniques, theorem 2.2.
    """
    correction = 1.0 if replace or size == 1 else (size - batch) / (size - 1)
    return (mean_square - square_mean) / batch * correction


def initializer(name: str) -> Callable[..., Array]:
    """How kernels begin: `xavier`, `he`, or `normal:STD`.

    Normal with mean 0 and the variance `2 / (in + out)`, `2 / in`, or `STD^2`.

    Raises:
      UserError: for another name.

    Source: Glorot and Bengio 2010, equation 12 (its variance); He et al. 2015 (arXiv:1502.01852), equation 10.
    """
    kind, _, number = name.partition(":")
    try:
        if kind == "normal" and float(number) > 0:
            return jax.nn.initializers.normal(float(number))
    except ValueError:
        pass
    if kind == "normal":
        raise UserError(f"initialiser {name!r}: normal needs a positive standard deviation, such as normal:0.01")
    if name not in ("xavier", "he"):
        raise unknown("initialiser", name, ["xavier", "he", "normal:STD"])
    scaled = jax.nn.initializers.variance_scaling
    return scaled(1.0, "fan_avg", "normal") if name == "xavier" else scaled(2.0, "fan_in", "normal")


def initial(key: Key, sizes: Sequence[int], init: str = "xavier", dtype: Any = jnp.float32) -> Layers:
    """Layers of the given widths, input first: kernels from `initializer(init)`, biases 0."""
    draw = initializer(init)
    pairs = enumerate(zip(sizes, sizes[1:], strict=False))
    return tuple(Layer(draw(jax.random.fold_in(key, k), pair, dtype), jnp.zeros(pair[1], dtype)) for k, pair in pairs)


class Network(NamedTuple):
    """A stack of dense layers with its loss, for inputs `[B, ...]` that are flattened and integer labels `[B]`.

    Attributes:
      init: key to layers.
      forward: (layers, inputs) to the trace; `trace.before[-1]` are the scores `[B, K]`.
      losses: (trace, labels) to `[B]`.
      deltas: (layers, trace, labels) to the derivatives of each loss by every z.
      backward: (layers, trace, labels) to the gradient of the mean loss.
    """

    init: Callable[[Key], Layers]
    forward: Callable[[Layers, Array], Trace]
    losses: Callable[[Trace, Array], Array]
    deltas: Callable[[Layers, Trace, Array], tuple[Array, ...]]
    backward: Callable[[Layers, Trace, Array], Layers]


def network(
    sizes: Sequence[int],
    activation: str = "tanh",
    loss: str = "cross_entropy",
    output: str = "",
    init: str = "xavier",
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
) -> Network:
    """A multilayer perceptron.

    Args:
      sizes: widths from the input to the classes, at least those two.
      activation: of the hidden layers, one of `ACTIVATIONS`.
      loss: one of `LOSSES`; the target of a label is 1 for its unit and 0 for the others.
      output: activation of the outputs; by default that of the loss, or `identity`.
      init: see `initializer`.
      dtype: of activations.
      param_dtype: of parameters.

    Raises:
      UserError: for an unknown name, a width below 1, or outputs that do not go with the loss.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    output = output or LOSSES[loss].output or "identity"
    if output not in OUTPUTS:
        raise unknown("activation of outputs", output, OUTPUTS)
    allowed = [LOSSES[loss].output] if LOSSES[loss].output else list(ACTIVATIONS)
    if output not in allowed:
        raise UserError(f"outputs of {output} do not go with the loss {loss}; it takes {', '.join(allowed)}")
    if len(sizes) < 2 or min(sizes) < 1:
        raise UserError(f"widths {list(sizes)} are not possible: an input and an output of at least 1 unit are needed")
    initializer(init)
    names = {"activation": activation, "output": output}

    def target(trace: Trace, labels: Array) -> Array:
        return jax.nn.one_hot(labels, sizes[-1], dtype=trace.before[-1].dtype)

    def run(layers: Layers, inputs: Array) -> Trace:
        x = inputs.reshape(len(inputs), -1)
        if x.shape[1] != sizes[0]:
            raise UserError(f"an input of {x.shape[1]} numbers does not fit the first width, {sizes[0]}")
        return forward(layers, x, dtype=dtype, **names)

    def back(layers: Layers, trace: Trace, labels: Array) -> tuple[Array, ...]:
        return deltas(layers, trace, target(trace, labels), loss=loss, **names)

    def backward(layers: Layers, trace: Trace, labels: Array) -> Layers:
        total = gradient(trace, back(layers, trace, labels))
        return jax.tree.map(lambda g, p: (g / len(labels)).astype(p.dtype), total, layers)

    return Network(
        init=functools.partial(initial, sizes=sizes, init=init, dtype=param_dtype),
        forward=run,
        losses=lambda trace, labels: LOSSES[loss].value(trace.before[-1], trace.after[-1], target(trace, labels)),
        deltas=back,
        backward=backward,
    )
