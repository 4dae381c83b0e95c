"""The perceptron: one threshold unit, corrected by every row that it gets wrong, and a pocket for its best weights.

Rows are `X = (-1, x_1, ..., x_d)` and weights `W = (T, w_1, ..., w_d)`, so that `W . X = w . x - T` and the threshold T
is learned like a weight. Targets are -1 and 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.types import Array, Batch, Key, Learner, Metrics, UserError, unknown

Activation = Callable[[Array], Array]


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    weights: Array  # [n], the threshold first
    pocket: Array | None  # [n], the best weights so far; None without a pocket
    pocket_errors: Array | None  # [] int32, the rows that they get wrong
    step: Array  # [] int32
    key: Key  # []


def bipolar_step(net: Array) -> Array:
    """`2 H(net) - 1`, H Heaviside's step with `H(0) = 1`: 1 from 0 on, -1 below."""
    return jnp.where(net >= 0, 1, -1).astype(net.dtype)


# Both are called a step function. They differ at 0 alone, where `sign` gives neither class.
ACTIVATIONS: dict[str, Activation] = {"sign": jnp.sign, "step": bipolar_step}


def neuron(weights: Array, bias: Array | float, x: Array, activation: Activation) -> Array:
    """`y = f(w . x + b)`, [...], of inputs `[..., d]` and weights `[d]`. As a row and its weights, `b = -T`."""
    return activation(nets(weights, x) + bias)


def nets(weights: Array, x: Array) -> Array:
    """`W . X`, [...], of rows `[..., n]` and weights `[n]`."""
    # Not a matrix product: accelerators would round its factors, and the sign of a net is what all depends on.
    return (x * weights).sum(-1)


def errors(weights: Array, x: Array, target: Array, activation: Activation) -> Array:
    """How many rows `[m, n]` weights `[n]` get wrong, [] int32: those whose output is not their target `[m]`."""
    return (activation(nets(weights, x)) != target).sum(dtype=jnp.int32)


def update(weights: Array, x: Array, target: Array, rate: float, activation: Activation) -> tuple[Array, Array]:
    """One row's correction `W <- W + eta (d - o) X`, with `o = f(W . X)`.

    A wrong row moves the weights by `2 eta d X`; where `sign` gives 0, by half of that.

    Args:
      weights: W, `[n]`.
      x: X, `[n]`.
      target: d, [].
      rate: eta.
      activation: f.

    Returns:
      (the new weights, the net input W . X [] before the correction).

    Source: Rosenblatt 1958; in this form Zurada 1992, section 2.5.
    """
    net = nets(weights, x)
    return weights + rate * (target - activation(net)) * x, net


def until_right(
    weights: Array, x: Array, target: Array, rate: float, activation: Activation, epochs: int
) -> tuple[Array, Array, Array]:
    """Corrects row after row, epoch after epoch, until an epoch in which every output is right.

    That epoch comes if, and only if, some weights get every row right (Novikoff 1962), hence the limit.

    Args:
      weights: to begin with, `[n]`.
      x: rows `[m, n]`.
      target: `[m]`.
      rate: eta.
      activation: f.
      epochs: to give up after.

    Returns:
      (weights `[n]`, epochs gone through [] int32, rows that were wrong in the last of them [] int32).
    """

    def epoch(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        def one(weights: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
            weights, net = update(weights, *row, rate, activation)
            return weights, activation(net) != row[1]

        weights, wrong = jax.lax.scan(one, carry[0], (x, target))
        return weights, carry[1] + 1, wrong.sum(dtype=jnp.int32)

    return jax.lax.while_loop(
        lambda carry: (carry[1] < epochs) & (carry[2] > 0), epoch, (weights, jnp.int32(0), jnp.int32(len(x)))
    )


def two_layers(hidden: Array, output: Array, x: Array, activation: Activation) -> Array:
    """The outputs `[...]` of a unit that sees other units' outputs.

    Args:
      hidden: weights of the H units that see the rows, `[H, n]`.
      output: weights of the one that sees them, `[1 + H]`.
      x: rows `[..., n]`.
      activation: of all.
    """
    seen = activation(jnp.stack([nets(unit, x) for unit in hidden], -1))
    return activation(nets(output, jnp.concatenate([-jnp.ones_like(seen[..., :1]), seen], -1)))


def perceptron(
    rate: float,
    activation: str = "sign",
    *,
    initial: Callable[..., Array] = jax.nn.initializers.zeros,
    pocket: tuple[Array, Array] | None = None,
    axis_name: str | None = None,
) -> Learner:
    """The learner of one unit. A batch of B rows is B corrections, one row after the other.

    Rows must have an order, so under `pmap` every device takes all rows of the batch, in their global order.

    The pocket holds the weights that get the fewest of all rows wrong, from the initial ones on. Gallant counts those
    errors only after a long enough run of right outputs, to save time; here they are counted after every row, so that
    the pocket is never worse than his.

    Args:
      rate: eta, above 0.
      activation: `sign` or `step`.
      initial: (key, shape, dtype) to the initial weights.
      pocket: (all rows `[m, n]`, their targets `[m]`), which the pocket is judged by; None for no pocket.
      axis_name: the `pmap` axis that holds the rows of a batch; None under `jit`.

    Returns:
      A learner over batches `{"x": [B, n], "target": [B]}`, with the metrics `wrong`, the part of the rows that
      were, and `criterion`, the mean of `max(0, -d net)`, each row before its correction.

    Raises:
      UserError: a rate that is not above 0, or an unknown activation.

    Source: Rosenblatt 1958; the pocket with ratchet: Gallant 1990.
    """
    if not rate > 0:
        raise UserError(f"a rate of {rate:g} learns nothing; it must be above 0")
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    f = ACTIVATIONS[activation]

    def init(key: Key, batch: Batch) -> State:
        x = batch["x"]
        weights = initial(jax.random.fold_in(key, 2**31 - 1), (x.shape[-1],), x.dtype)
        if pocket is None:
            return State(weights, None, None, jnp.int32(0), key)
        return State(weights, jnp.copy(weights), errors(weights, *pocket, f), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        rows = batch["x"], batch["target"]
        if axis_name is not None:
            rows = jax.lax.all_gather(rows, axis_name, tiled=True)

        def one(state: State, row: tuple[Array, Array]) -> tuple[State, tuple[Array, Array]]:
            weights, net = update(state.weights, *row, rate, f)
            seen = jnp.maximum(0, -row[1] * net), (f(net) != row[1]).astype(net.dtype)
            if pocket is None or state.pocket is None or state.pocket_errors is None:
                return state._replace(weights=weights), seen
            wrong = errors(weights, *pocket, f)
            kept = jnp.where(wrong < state.pocket_errors, weights, state.pocket)
            return State(weights, kept, jnp.minimum(wrong, state.pocket_errors), state.step, state.key), seen

        state, (criterion, wrong) = jax.lax.scan(one, state, rows)
        return state._replace(step=state.step + 1), {"wrong": wrong.mean(), "criterion": criterion.mean()}

    return Learner(init, step)
