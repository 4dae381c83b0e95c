"""Recurrent networks: PyTorch's with the same weights, known counts, streams, and what dropout drops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.nn.recurrent import GATES, Recurrent
from dlfx.types import UserError
from tests.compiling import quick

B, T, D, H = 3, 6, 5, 4
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
LENGTHS = np.array([6, 4, 1], np.int32)


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def from_torch(values: dict[str, Any], cell: str, gradients: bool = False) -> dict[str, np.ndarray]:
    """PyTorch's parameters by our names. Of its two biases only the sum matters, so their gradients are equal."""
    params = {}
    for name in [name for name in values if name.startswith("weight_ih")]:
        suffix = name.removeprefix("weight_ih_l")
        ours = f"layer{suffix}"
        first, second = values[f"bias_ih_l{suffix}"], values[f"bias_hh_l{suffix}"].copy()
        if cell == "gru":
            params[f"{ours}_recurrent_bias"] = second[2 * H :].copy()
            second[2 * H :] = 0
        params[f"{ours}_bias"] = first if gradients else first + second
        params[f"{ours}_kernel"] = values[name].T
        params[f"{ours}_recurrent_kernel"] = values[f"weight_hh_l{suffix}"].T
    return params


@pytest.mark.parametrize(
    "cell, activation, padded",
    [
        ("rnn", "tanh", True),
        ("rnn", "relu", False),
        ("lstm", "tanh", True),
        ("lstm", "tanh", False),
        ("gru", "tanh", True),
    ],
)
def test_equals_pytorch_in_values_and_gradients(cell: str, activation: str, padded: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    options = {"nonlinearity": activation} if cell == "rnn" else {}
    peer = kind(D, H, 2, batch_first=True, bidirectional=True, **options)
    x = torch.tensor(X, requires_grad=True)
    given: Any = x
    if padded:
        given = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True)
    wanted, last = peer(given)
    if padded:
        wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(wanted, batch_first=True)
    finals = last if cell == "lstm" else (last,)
    (wanted.cos().sum() + sum(part.square().sum() for part in finals)).backward()

    network = Recurrent(cell, H, layers=2, bidirectional=True, activation=activation)
    lengths = LENGTHS if padded else None

    def objective(params: Any, x: Any) -> Any:
        y, state = network.apply({"params": params}, x, lengths)
        return jnp.cos(y).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(state)), (y, state)

    params = from_torch({name: value.detach().numpy() for name, value in peer.named_parameters()}, cell)
    init = jax.eval_shape(lambda: network.init(jax.random.key(0), X))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, init)
    (_, (y, state)), (d_params, d_x) = quick(jax.value_and_grad(objective, (0, 1), has_aux=True))(params, X)
    np.testing.assert_allclose(y, wanted.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_x, x.grad, rtol=1e-5, atol=1e-5)
    for part, final in enumerate(finals):  # PyTorch's [layers * directions, B, H]
        ours = [direction[part] if cell == "lstm" else direction for layer in state for direction in layer]
        np.testing.assert_allclose(np.stack(ours), final.detach(), rtol=1e-5, atol=1e-5)
    wanted = from_torch({name: value.grad.numpy() for name, value in peer.named_parameters()}, cell, gradients=True)
    for name, value in wanted.items():
        np.testing.assert_allclose(d_params[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_padded_batch_is_each_sequence_alone_whatever_the_padding() -> None:
    network = Recurrent("lstm", H, layers=2, bidirectional=True, peepholes=True)
    params = quick(network.init)(jax.random.key(0), X)
    run = quick(network.apply)
    y, state = run(params, X, LENGTHS)
    filled = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], X, 1e3).astype(np.float32)
    jax.tree.map(np.testing.assert_array_equal, run(params, filled, LENGTHS), (y, state))
    one, last = run(params, X[1:2, :4])
    np.testing.assert_allclose(y[1, :4], one[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[1, 4:], 0)
    jax.tree.map(lambda a, z: np.testing.assert_allclose(a[1], z[0], rtol=1e-5, atol=1e-6), state, last)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_backward_is_forward_over_the_sequence_turned_around(cell: str) -> None:
    both, one = Recurrent(cell, H, bidirectional=True), Recurrent(cell, H)
    params = quick(both.init)(jax.random.key(0), X)["params"]
    y, ((_, last),) = quick(both.apply)({"params": params}, X)
    back = {name.replace("_reverse", ""): value for name, value in params.items() if "_reverse" in name}
    turned, (end,) = quick(one.apply)({"params": back}, X[:, ::-1])
    np.testing.assert_allclose(y[..., H:], turned[:, ::-1], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), last, end)
    alone, (end,) = quick(Recurrent(cell, H, reverse=True).apply)({"params": back}, X)
    np.testing.assert_allclose(alone, y[..., H:], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), last, end)


@pytest.mark.parametrize("cell", GATES)
def test_a_stream_of_single_steps_is_the_whole(cell: str) -> None:
    network = Recurrent(cell, H, layers=2)
    params = quick(network.init)(jax.random.key(0), X)
    y, last = quick(network.apply)(params, X)

    def step(state: Any, x: jax.Array) -> Any:
        y, state = network.apply(params, x[:, None], initial=state)
        return state, y[:, 0]

    state, steps = quick(lambda x: jax.lax.scan(step, network.initial_state(B), x.swapaxes(0, 1)))(X)
    np.testing.assert_allclose(steps.swapaxes(0, 1), y, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, last)


@pytest.mark.parametrize("units, total", [(200, 4_651_600), (650, 19_775_200), (1500, 66_022_000)])
def test_counts_of_the_language_models_of_zaremba(units: int, total: int) -> None:
    """4.65, 19.78 and 66.02 million: an embedding and a softmax over 10,000 words around two layers."""
    network = Recurrent("lstm", units, layers=2)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 1, units))))
    assert count(params) + 10_000 * units + (units + 1) * 10_000 == total


@pytest.mark.parametrize(
    "cell, options, total",
    [
        ("rnn", {}, H * (D + H + 1)),
        ("lstm", {}, 4 * ((D + H) * H + H)),
        ("lstm", {"peepholes": True}, 4 * ((D + H) * H + H) + 3 * H),
        ("gru", {}, 3 * ((D + H) * H + H) + H),
        ("gru_original", {}, 3 * ((D + H) * H + H)),
        ("gru_original", {"layers": 2, "bidirectional": True}, 2 * 3 * H * (D + H + 1 + 2 * H + H + 1)),
    ],
)
def test_counts_by_formula(cell: str, options: Any, total: int) -> None:
    assert count(jax.eval_shape(lambda: Recurrent(cell, H, **options).init(jax.random.key(0), X))) == total


def test_initial_weights() -> None:
    params = Recurrent("lstm", H, forget_bias=2.0).init(jax.random.key(0), X)["params"]
    np.testing.assert_array_equal(params["layer0_bias"], np.repeat([0, 2, 0, 0], H))
    for gate in np.split(np.asarray(params["layer0_recurrent_kernel"]), 4, 1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-5)


def test_dropout_between_layers_is_drawn_at_each_step_and_not_after_the_last() -> None:
    x, rngs = np.ones((2, 40, D), np.float32), {"dropout": jax.random.key(1)}
    single = Recurrent("rnn", H, dropout=0.5)
    params = quick(single.init)(jax.random.key(0), x)
    trained = quick(partial(single.apply, train=True))(params, x, rngs=rngs)[0]
    np.testing.assert_array_equal(trained, quick(single.apply)(params, x)[0])
    double = Recurrent("rnn", 64, layers=2, dropout=0.5, recurrent_init=jax.nn.initializers.zeros)
    params = quick(double.init)(jax.random.key(0), x)
    y = quick(partial(double.apply, train=True))(params, x, rngs=rngs)[0]  # no memory: equal steps but for the masks
    assert len(np.unique(y[0], axis=0)) == 40
    still = quick(double.apply)(params, x)[0]
    np.testing.assert_allclose(still, np.broadcast_to(still[:, :1], still.shape), rtol=1e-5, atol=1e-6)


def test_variational_dropout_has_the_same_masks_at_every_step() -> None:
    """Without a memory all steps of a sequence are equal, and a state that sees itself sees the same units of it."""
    x, rngs = np.ones((2, 9, D), np.float32), {"dropout": jax.random.key(1)}
    blind = Recurrent("rnn", 64, layers=2, variational_dropout=0.5, recurrent_init=jax.nn.initializers.zeros)
    params = quick(blind.init)(jax.random.key(0), x)
    y = quick(partial(blind.apply, train=True))(params, x, rngs=rngs)[0]
    np.testing.assert_allclose(y, np.broadcast_to(y[:, :1], y.shape), rtol=1e-5, atol=1e-6)
    assert np.abs(y[0] - y[1]).max() > 0.1  # and other ones in another sequence

    # A layer that copies its state, times the mask: after k steps 2^k of what is kept, and 0 of what is dropped.
    copy = Recurrent("rnn", 64, activation="relu", variational_dropout=0.5)
    params = {"kernel": jnp.zeros((D, 64)), "recurrent_kernel": jnp.eye(64), "bias": jnp.zeros(64)}
    params = {"params": {f"layer0_{name}": value for name, value in params.items()}}
    initial = (jnp.ones((2, 64)),)
    y, _ = quick(partial(copy.apply, train=True))(params, x, initial=initial, rngs=rngs)
    assert set(np.unique(y[:, 0])) == {0.0, 2.0}
    np.testing.assert_array_equal(y, y[:, :1] * 2.0 ** np.arange(9)[:, None])
    np.testing.assert_array_equal(quick(copy.apply)(params, x, initial=initial)[0], 1)


def test_types() -> None:
    network = Recurrent("lstm", H, layers=2, bidirectional=True, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), X, LENGTHS))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(shapes[0]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes[1]))


@pytest.mark.parametrize(
    "options, x, lengths, message",
    [
        ({"cell": "lsmt"}, X, None, "unknown recurrent cell 'lsmt'; did you mean lstm"),
        ({"cell": "gru", "peepholes": True}, X, None, "peepholes are of the cell lstm; got gru"),
        ({"cell": "rnn", "activation": "cos"}, X, None, "activation tanh or relu; got 'cos'"),
        ({"cell": "rnn", "layers": 0}, X, None, "has features and layers; got 4 and 0"),
        ({"cell": "rnn"}, X[0], None, r"takes x \[B, T, D\] and lengths \[B\]; got \[6, 5\] and None"),
        ({"cell": "rnn"}, X, LENGTHS[:2], r"got \[3, 6, 5\] and \[2\]"),
    ],
)
def test_bad_input_is_named(options: Any, x: Any, lengths: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: Recurrent(features=H, **options).init(jax.random.key(0), x, lengths))
