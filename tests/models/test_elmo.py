"""ELMo: words by their letters against NumPy, what each direction may see, and the mix of layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.elmo import BiLM, CharacterCNN, LayerMix
from dlfx.nn.recurrent import Recurrent
from dlfx.types import UserError
from tests.compiling import quick

WORDS = np.array([[2, 5, 3, 0, 0, 0], [2, 4, 6, 5, 7, 3], [2, 3, 0, 0, 0, 0], [2, 7, 7, 4, 3, 0]])
FORM = {"letter_features": 3, "filters": ((1, 2), (3, 4)), "highways": 2}
MODEL = BiLM(8, 9, width=4, layers=2, **FORM)
X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
LENGTHS = np.array([5, 3])


@pytest.fixture(scope="module")
def words():
    model = CharacterCNN(8, 5, **FORM)
    variables = quick(model.init)(jax.random.key(0), WORDS)
    return variables, np.asarray(quick(model.apply)(variables, WORDS)), model


@pytest.fixture(scope="module")
def bilm():
    letters = WORDS[np.array([[0, 1, 2, 3], [3, 3, 1, 2]])]
    shapes = jax.eval_shape(partial(MODEL.init, method="losses"), jax.random.key(1), letters, letters[..., 0])
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: rng.normal(size=x.shape, scale=0.5).astype(x.dtype), shapes), letters


def test_words_by_their_letters_in_numpy(words):
    variables, found, _ = words
    p = jax.tree.map(np.asarray, variables["params"])
    assert all((p[f"carry{k}"]["bias"] == 1).all() for k in range(2))  # at first a highway layer mostly carries

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    for word, vector in zip(WORDS, found, strict=True):
        x = p["embedding"]["embedding"][word[word > 0]]
        parts = []
        for width, _ in FORM["filters"]:
            kernel = p[f"filters{width}"][f"window{width}"]
            rows = np.concatenate([x, np.zeros((max(width - len(x), 0), 3))])
            answers = [dense(rows[i : i + width].reshape(-1), kernel) for i in range(len(rows) - width + 1)]
            parts.append(np.maximum(np.max(answers, 0), 0))
        y = np.concatenate(parts)
        for k in range(2):
            gate = 1 / (1 + np.exp(-dense(y, p[f"carry{k}"])))
            y = gate * y + (1 - gate) * np.maximum(dense(y, p[f"highway{k}"]), 0)
        np.testing.assert_allclose(vector, dense(y, p["projection"]), rtol=1e-4, atol=1e-6)


def test_room_behind_a_word_does_not_matter(words):
    variables, found, model = words
    wider = quick(model.apply)(variables, np.pad(WORDS, ((0, 0), (0, 3))).reshape(2, 2, 9))
    np.testing.assert_allclose(wider.reshape(4, 5), found, rtol=1e-5, atol=1e-6)


def test_no_layer_sees_what_its_direction_has_yet_to_read(bilm):
    variables, _ = bilm

    def read(x):
        return MODEL.apply(variables, x[None], method="read")[0]

    slopes = np.abs(quick(jax.jacrev(read))(X[0])).sum(-1)  # [layer, t, feature, t of the input]
    later = np.triu(np.ones((5, 5), bool), 1)
    for layer in range(3):
        for side, unseen in ((slice(0, 4), later), (slice(4, 8), later.T)):
            seen = slopes[layer, :, side].sum(1)
            assert (seen[unseen] == 0).all()
            # The words' own vectors see the word alone; every LSTM sees all that it has read.
            assert ((seen > 0) == (np.eye(5, dtype=bool) if layer == 0 else ~unseen)).all()


def test_layers_are_lstms_with_what_they_read_added(bilm):
    variables, _ = bilm
    layers = quick(partial(MODEL.apply, method="read"))(variables, X, LENGTHS)
    assert layers.shape == (2, 3, 5, 8)
    lstm = quick(Recurrent("lstm", 4).apply)
    for name, side, step in (("forward", slice(0, 4), 1), ("backward", slice(4, 8), -1)):
        x = X[1:, :3][:, ::step]  # of the shorter one, alone
        np.testing.assert_array_equal(layers[1, 0, :3, side], x[0, ::step])
        for k in range(2):
            new, _ = lstm({"params": variables["params"][f"{name}_{k}"]}, x)
            x = new + x if k else new
            np.testing.assert_allclose(layers[1, k + 1, :3, side], x[0, ::step], rtol=1e-4, atol=1e-6)
    assert not layers[1, :, 3:].any()


def test_losses_are_of_the_word_after_and_of_the_word_before(bilm):
    variables, letters = bilm
    targets = np.array([[1, 0, 8, 4], [2, 2, 0, 7]])
    forward, backward = quick(partial(MODEL.apply, method="losses"))(variables, letters, targets)
    last = np.asarray(quick(MODEL.apply)(variables, letters)[:, -1])
    softmax = variables["params"]["softmax"]
    for t in range(3):
        for found, h, target in (
            (forward[:, t], last[:, t, :4], targets[:, t + 1]),
            (backward[:, t], last[:, t + 1, 4:], targets[:, t]),
        ):
            p = np.exp(h @ softmax["kernel"] + softmax["bias"])
            wanted = -np.log(p[np.arange(2), target] / p.sum(1))
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_the_mix_of_layers(norm):
    layers = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)
    s, gamma = np.array([0.5, -1.0, 2.0]), 1.7
    begin = LayerMix(norm).init(jax.random.key(0), layers)["params"]
    assert begin["gamma"] == 1 and begin["weights"].shape == (3,) and not begin["weights"].any()
    found = LayerMix(norm).apply({"params": {"weights": jnp.array(s), "gamma": jnp.array(gamma)}}, jnp.array(layers))
    if norm:
        layers = (layers - layers.mean(-1, keepdims=True)) / np.sqrt(layers.var(-1, keepdims=True) + 1e-6)
    wanted = gamma * sum(np.exp(s[j]) / np.exp(s).sum() * layers[:, j] for j in range(3))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_shapes_types_and_mistakes():
    letters = jnp.zeros((2, 4, 6), jnp.int32)
    # The published form, with plain LSTMs as wide as its projections: 2,048 filters and two highway layers over them.
    shapes = jax.eval_shape(BiLM(262, 10).init, jax.random.key(0), letters)["params"]["words"]
    assert {x["kernel"].shape for name, x in shapes.items() if name[:5] in ("carry", "highw")} == {(2048, 2048)}
    assert shapes["projection"]["kernel"].shape == (2048, 512)
    with jax.enable_x64():
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        out = jax.eval_shape(BiLM(8, 9, width=4, **FORM, **types).init_with_output, jax.random.key(0), letters)
        assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float64")}
    with pytest.raises(UserError, match="both directions has no reverse"):
        Recurrent("lstm", 3, bidirectional=True, reverse=True).init(jax.random.key(0), X)
