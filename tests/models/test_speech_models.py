"""Recognisers of speech: each utterance alone and in a batch, against PyTorch, and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.speech import STRIDES, SpeechRecognizer, output_frames
from dlfx.types import UserError
from tests.compiling import quick

RNG = np.random.default_rng(0)


def model(**options):
    return SpeechRecognizer(**{"classes": 4, "features": 6, "cell": "gru", **options})


@pytest.mark.parametrize("pooled", [False, True])
def test_an_utterance_gives_in_a_batch_what_it_gives_alone(pooled):
    net = model(pooled=pooled)
    features, lengths = RNG.normal(size=(3, 14, 5)).astype(np.float32), np.array([14, 9, 6])
    features[np.arange(14) >= lengths[:, None]] = 0  # as of standardise
    variables = quick(net.init)(jax.random.key(0), features, lengths)
    scores, frames = quick(net.apply)(variables, features, lengths)
    np.testing.assert_array_equal(frames, [4, 3, 2])
    for row, length in enumerate(lengths):
        alone, _ = quick(net.apply)(variables, features[row : row + 1, :length], lengths[row : row + 1])
        of = scores[row] if pooled else scores[row, : frames[row]]
        np.testing.assert_allclose(of, alone[0], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("subsample", STRIDES)
def test_equal_to_pytorch(subsample):
    torch = pytest.importorskip("torch")
    net = model(subsample=subsample)
    features = RNG.normal(size=(2, 11, 5)).astype(np.float32)
    lengths = np.array([11, 11])
    variables = quick(net.init)(jax.random.key(1), features, lengths)
    params = jax.tree.map(lambda x: torch.tensor(np.asarray(x)), variables["params"])
    x = torch.tensor(features).mT
    for k, stride in enumerate({1: (1, 1), 2: (2, 1), 4: (2, 2)}[subsample]):
        conv, norm = params[f"Conv_{k}"], params[f"LayerNorm_{k}"]
        x = torch.nn.functional.conv1d(x, conv["kernel"][:, 0].permute(2, 1, 0), conv["bias"], stride, 2).mT
        x = torch.nn.functional.layer_norm(x, (6,), norm["scale"], norm["bias"], 1e-6).relu().mT
    network, gates = torch.nn.GRU(6, 6, batch_first=True, bidirectional=True), params["Recurrent_0"]

    def turned(x):
        return x.mT.contiguous() if x.ndim == 2 else x

    for suffix in ("", "_reverse"):
        for name, kind in (("weight_ih", "kernel"), ("weight_hh", "recurrent_kernel"), ("bias_ih", "bias")):
            getattr(network, f"{name}_l0{suffix}").data = turned(gates[f"layer0{suffix}_{kind}"])
        bias = torch.cat([torch.zeros(12), gates[f"layer0{suffix}_recurrent_bias"]])
        getattr(network, f"bias_hh_l0{suffix}").data = bias
    dense = params["Dense_0"]
    want = network(x.mT)[0] @ dense["kernel"] + dense["bias"]
    scores, frames = quick(net.apply)(variables, features, lengths)
    assert scores.shape[1] == output_frames(11, subsample) == frames[0]
    np.testing.assert_allclose(scores, want.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_parameters_are_counted():
    shapes = jax.eval_shape(model(cell="lstm").init, jax.random.key(0), jnp.zeros((1, 8, 5)), jnp.array([8]))
    convolutions = 5 * 5 * 6 + 6 + 5 * 6 * 6 + 6 + 2 * 2 * 6
    network = 2 * 4 * 6 * (6 + 6 + 1)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == convolutions + network + 12 * 4 + 4


def test_half_precision_ends_in_float32_scores():
    net = model(dtype=jnp.bfloat16)
    (scores, _), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((1, 8, 5)), jnp.array([8]))
    assert scores.dtype == jnp.float32


def test_an_impossible_subsampling_is_refused():
    with pytest.raises(UserError, match="time can be divided by 1, 2, 4, not by 3"):
        model(subsample=3).init(jax.random.key(0), jnp.zeros((1, 8, 5)), jnp.array([8]))
