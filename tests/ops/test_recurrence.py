"""Recurrences against loops over time, in values and gradients, and what the notes say of them against what is so."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.recurrence import gru, gru_original, lstm, rnn
from dlfx.types import UserError
from tests.compiling import quick

B, T, D, H = 3, 5, 6, 4
LENGTHS = np.array([5, 2, 3])
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "peepholes": 4, "gru": 3, "gru_original": 3}


def fast(cell: str, p: Any, **options: Any) -> Any:
    state = (p["h"], p["c"]) if cell in ("lstm", "peepholes") else p["h"]
    layer = p["x"], p["kernel"], p["bias"], p["w"]
    if cell in ("tanh", "relu"):
        return rnn(*layer, state, activation=cell, **options)
    if cell in ("lstm", "peepholes"):
        peepholes = p["peepholes"] if cell == "peepholes" else None
        return lstm(*layer, state, peepholes=peepholes, **options)
    if cell == "gru":
        return gru(*layer, state, inner_bias=p["inner_bias"], **options)
    return gru_original(*layer, state, **options)


def loop(cell: str, p: Any, lengths: Any = None, reverse: bool = False, mask: Any = None) -> Any:
    """The equations of the papers, one sequence and one step after another, for complex numbers too."""

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    outputs, hs, cs = [], [], []
    for b in range(len(p["x"])):
        length = p["x"].shape[1] if lengths is None else int(lengths[b])
        h, c, w, m = p["h"][b], p["c"][b], p["w"], 1.0 if mask is None else mask[b]
        n = len(h)
        rows = [np.zeros(n)] * p["x"].shape[1]
        for t in reversed(range(length)) if reverse else range(length):
            x = p["x"][b, t] @ p["kernel"] + p["bias"]
            if cell in ("tanh", "relu"):
                a = x + (m * h) @ w
                h = np.tanh(a) if cell == "tanh" else np.maximum(a, 0)
            elif cell in ("lstm", "peepholes"):
                i, f, g, o = (x[k * n : k * n + n] + (m * h) @ w[:, k * n : k * n + n] for k in range(4))
                pi, pf, po = p["peepholes"] if cell == "peepholes" else (0, 0, 0)
                c_new = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * np.tanh(g)
                h, c = sigmoid(o + po * c_new) * np.tanh(c_new), c_new
            else:
                r, z = (sigmoid(x[k * n : k * n + n] + (m * h) @ w[:, k * n : k * n + n]) for k in range(2))
                w_n = w[:, 2 * n :]
                inner = r * ((m * h) @ w_n + p["inner_bias"]) if cell == "gru" else (r * (m * h)) @ w_n
                h = (1 - z) * np.tanh(x[2 * n :] + inner) + z * h
            rows[t] = h
        outputs.append(np.stack(rows))
        hs.append(h)
        cs.append(c)
    h, c = np.stack(hs), np.stack(cs)
    return np.stack(outputs), (h, c) if cell in ("lstm", "peepholes") else h


def inputs(cell: str, seed: int = 0, population: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    width = GATES[cell] * H
    shapes: Any = {"x": (B, T, D), "kernel": (D, width), "bias": (width,), "w": (H, width), "h": (B, H), "c": (B, H)}
    shapes |= {"inner_bias": (H,), "peepholes": (3, H)}
    lead = (population,) if population else ()
    return {name: rng.normal(size=(*lead, *shape)) for name, shape in shapes.items()}


def weighed(result: Any) -> Any:
    """A number that every output changes differently."""
    return sum((leaf * np.cos(np.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("padded, reverse, dropped", [(False, False, False), (True, True, True), (True, False, False)])
def test_equals_the_equations_of_each_sequence_alone_in_values_and_gradients(
    cell: str, padded: bool, reverse: bool, dropped: bool
) -> None:
    rng = np.random.default_rng(1)
    options = {"lengths": LENGTHS if padded else None, "reverse": reverse}
    options["mask"] = rng.integers(0, 2, (B, H)) * 2.0 if dropped else None
    p = inputs(cell)

    def ours(p: Any) -> Any:
        result = fast(cell, p, **options)
        return weighed(result), result

    with jax.enable_x64(True):
        (_, result), gradients = quick(jax.value_and_grad(ours, has_aux=True))(p)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), result, loop(cell, p, **options)
    )
    step = 1e-30  # f(x + i e v) = f(x) + i e f'(x) v, exact to rounding as nothing is subtracted
    for name, value in p.items():
        for _ in range(5):
            direction = rng.normal(size=value.shape)
            moved = weighed(loop(cell, p | {name: value + 1j * step * direction}, **options))
            np.testing.assert_allclose(
                np.vdot(direction, gradients[name]), np.imag(moved) / step, rtol=1e-10, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize("cell", ["relu", "peepholes", "gru", "gru_original"])
def test_a_population_within_a_scan_has_the_gradients_of_each_member(cell: str) -> None:
    p = inputs(cell, population=2)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: weighed(fast(cell, p, lengths=LENGTHS)))

        def descend(p: Any) -> Any:
            return jax.tree.map(lambda value, d: value - 0.01 * d, p, gradient(p))

        together = quick(lambda p: jax.lax.scan(lambda p, _: (jax.vmap(descend)(p), None), p, None, 2)[0])(p)
        alone = quick(lambda p: descend(descend(p)))
        for member in range(2):
            one = alone(jax.tree.map(lambda value, i=member: value[i], p))
            for name, value in one.items():
                np.testing.assert_allclose(together[name][member], value, rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("cell", ["peepholes", "gru"])
def test_a_stream_in_two_pieces_is_the_whole(cell: str) -> None:
    p = inputs(cell)
    whole, last = fast(cell, p)
    first, state = fast(cell, p | {"x": p["x"][:, :2]})
    h, c = state if isinstance(state, tuple) else (state, p["c"])
    second, end = fast(cell, p | {"x": p["x"][:, 2:], "h": h, "c": c})
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), end, last)


def test_narrow_types_stay() -> None:
    p = {name: jnp.asarray(value, jnp.bfloat16) for name, value in inputs("peepholes").items()}
    for cell in ("peepholes", "lstm"):
        shapes = jax.eval_shape(jax.value_and_grad(lambda p, c=cell: weighed(fast(c, p)).astype(jnp.float32)), p)
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(shapes[1]))


def test_without_an_activation_the_state_is_linear_in_the_inputs() -> None:
    """The simple network of the notes, `h = U x + W h + b`, would obey superposition; `f` of it does not."""
    w = np.array([[0.5]], np.float32)
    a, b = np.random.default_rng(0).normal(size=(2, 1, 6, 1)).astype(np.float32)
    zero = np.zeros((1, 1), np.float32)

    def linear(x: np.ndarray) -> np.ndarray:
        h, out = 0.0, []
        for x_t in x[0, :, 0]:
            h = x_t + w[0, 0] * h
            out.append(h)
        return np.array(out)

    np.testing.assert_allclose(linear(a + b), linear(a) + linear(b), rtol=1e-5)

    def f(x: np.ndarray) -> jax.Array:
        return rnn(x, np.ones((1, 1), np.float32), np.zeros(1, np.float32), w, zero)[0]

    assert np.abs(f(a + b) - f(a) - f(b)).max() > 0.1


def test_the_forget_gate_alone_carries_the_cell() -> None:
    """With forget gates open and input gates shut the cell stays; the output gate only decides what is seen of it."""
    gates = np.zeros((1, 50, 4), np.float32)
    gates[..., 0], gates[..., 1] = -100, 100
    state = (np.zeros((1, 1), np.float32), np.full((1, 1), 0.7, np.float32))
    weights = np.eye(4, dtype=np.float32), np.zeros(4, np.float32), np.zeros((1, 4), np.float32)
    run = quick(lambda gates: lstm(gates, *weights, state))
    kept = quick(jax.grad(lambda c, gates: lstm(gates, *weights, (state[0], c))[1][1].sum()))
    for output in (-100, 0, 100):
        gates[..., 3] = output
        h, (_, c) = run(gates)
        assert c == state[1]
        np.testing.assert_allclose(h, np.tanh(0.7) / (1 + np.exp(-np.float64(output))), atol=1e-6)
        assert kept(state[1], gates) == 1
    gates[:, :3, 1] = 0  # forget half at three steps
    assert run(gates)[1][1] == pytest.approx(0.7 / 8)


@pytest.mark.parametrize("cell", ["gru", "gru_original"])
def test_the_update_gate_interpolates_and_the_reset_gate_only_enters_the_candidate(cell: str) -> None:
    """One gate keeps or replaces, none hides the state from the output: what the notes call its output is the state."""
    p = {name: value.astype(np.float32) for name, value in inputs(cell).items()}
    for bias, expected in ((100, p["h"]), (-100, None)):
        q = p | {"bias": p["bias"].copy()}
        q["bias"][H : 2 * H] = bias
        outputs, last = fast(cell, q)
        np.testing.assert_array_equal(outputs[:, -1], last)
        if expected is not None:
            np.testing.assert_allclose(last, expected, rtol=1e-6)
    q["bias"][:H] = -100  # reset: without a memory, and with the gate z shut the candidate alone
    candidate = np.tanh(q["x"] @ q["kernel"][:, 2 * H :] + q["bias"][2 * H :])
    np.testing.assert_allclose(fast(cell, q)[0], candidate, rtol=1e-4, atol=1e-5)


def test_the_two_forms_of_the_gru_differ_unless_the_reset_gate_is_open() -> None:
    p = {name: value.astype(np.float32) for name, value in inputs("gru").items()}
    p["inner_bias"][:] = 0
    assert np.abs(fast("gru", p)[0] - fast("gru_original", p)[0]).max() > 0.01
    p["bias"][:H] = 100
    np.testing.assert_allclose(fast("gru", p)[0], fast("gru_original", p)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_gradients_vanish_or_explode_by_the_spectrum_of_the_recurrent_weights(radius: float) -> None:
    """With an active ReLU every derivative is 1, and still the gradient over 20 steps is the power of the radius."""
    x = np.zeros((1, 20, 2), np.float32)
    h = np.ones((1, 2), np.float32)
    w = (radius * np.eye(2)).astype(np.float32)
    layer = np.eye(2, dtype=np.float32), np.zeros(2, np.float32), w

    @quick
    def gradients(h: jax.Array) -> Any:
        active = jax.grad(lambda h: rnn(x, *layer, h, activation="relu")[1].sum())(h)
        silent = jax.grad(lambda h: rnn(x - 100, *layer, h, activation="relu")[1].sum())(h)
        return active, silent, jax.grad(lambda h: rnn(x, *layer, h)[1].sum())(h)

    active, silent, squashed = gradients(h)
    np.testing.assert_allclose(active, radius**20, rtol=1e-5)
    np.testing.assert_array_equal(silent, 0)  # the derivative of a ReLU is 1 of active units only
    assert (np.abs(squashed) < active).all()  # that of tanh makes it smaller


def test_shapes_that_do_not_fit_are_named() -> None:
    p = inputs("lstm")
    layer, state = (p["x"], p["kernel"], p["bias"], p["w"]), (p["h"], p["c"])
    for call, message in (
        (
            lambda: lstm(p["x"][..., :-1], *layer[1:], state),
            r"from 5 features to 4 units with 4 gates has weights \[5, 16\], \[16\] and \[4, 16\]; got \[6, 16\]",
        ),
        (lambda: lstm(*layer, (p["h"][:2], p["c"])), r"states and masks of 3 sequences are \[3, 4\]"),
        (lambda: lstm(*layer, state, peepholes=p["h"][0]), r"peepholes of 4 units are \[3, 4\]"),
        (lambda: gru(*layer, p["h"], inner_bias=p["h"]), r"inner bias of 4 units is \[4\]"),
        (lambda: rnn(*layer, p["h"], activation="sin"), "activation tanh or relu; got 'sin'"),
    ):
        with pytest.raises(UserError, match=message):
            call()
