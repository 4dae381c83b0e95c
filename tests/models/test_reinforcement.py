"""Networks of agents: parameters counted by hand, what dueling and noise promise, observations of any kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.reinforcement.actor_critic import ActorCritic
from dlfx.models.reinforcement.q_network import NoisyDense, QNetwork
from dlfx.models.reinforcement.torsos import MLP, ConvTorso, minatar_cnn, nature_cnn
from dlfx.types import UserError
from tests.compiling import quick


def shapes(module, *shape, dtype=jnp.float32):
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape), dtype))


def count(module, *shape, dtype=jnp.float32):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(module, *shape, dtype=dtype)))


def initial(module, x):
    return quick(module.init)(jax.random.key(0), x)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def filled(module, x):
    """Parameters of no particular kind."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: random(*leaf.shape), shapes)


def test_nature_s_network_has_its_1684128_parameters():
    convolutions = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64
    dense = (7 * 7 * 64 + 1) * 512  # 84 -> 20 -> 9 -> 7
    assert count(nature_cnn(), 84, 84, 4, dtype=jnp.uint8) == convolutions + dense == 1_684_128
    assert count(QNetwork(nature_cnn(), 6), 84, 84, 4) == 1_684_128 + 513 * 6


@pytest.mark.parametrize("channels", [4, 10])
def test_minatar_s_network(channels):
    expected = (9 * channels + 1) * 16 + (8 * 8 * 16 + 1) * 128
    assert count(minatar_cnn(), 10, 10, channels, dtype=jnp.bool_) == expected


def test_an_mlp_takes_vectors_or_state_numbers():
    assert count(MLP((120, 84)), 4) == 5 * 120 + 121 * 84
    assert count(MLP((120, 84)), 3, 2) == 7 * 120 + 121 * 84  # flattened
    numbers = MLP((8,), num_states=5)
    variables = filled(numbers, jnp.array([0]))
    layer = variables["params"]["Dense_0"]
    assert layer["kernel"].shape == (5, 8)
    found = quick(numbers.apply)(variables, jnp.array([3, 1]))
    np.testing.assert_allclose(found, np.maximum(layer["kernel"][[3, 1]] + layer["bias"], 0), atol=1e-6)
    np.testing.assert_array_equal(quick(MLP((), num_states=3).apply)({}, jnp.array([2])), [[0, 0, 1]])


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("hidden", [0, 7])
def test_heads_counted_by_hand(hidden, noisy):
    features, actions, outputs = 8, 3, 5
    times = 2 if noisy else 1  # a mean and a spread for every weight
    torso = 5 * features  # of vectors [4], never noisy
    plain = QNetwork(MLP((features,)), actions, outputs, noisy=noisy)
    assert count(plain, 4) == torso + times * (features + 1) * actions * outputs
    inner = 2 * (features + 1) * hidden
    streams = ((hidden or features) + 1) * (actions * outputs + outputs)
    dueling = QNetwork(MLP((features,)), actions, outputs, dueling=True, hidden=hidden, noisy=noisy)
    assert count(dueling, 4) == torso + times * (inner + streams)


def test_a_dueling_head_is_its_value_plus_the_centred_advantages():
    """So that the two streams can be told apart: the mean over actions is the value, whatever the advantages."""
    module, x = QNetwork(MLP((6,)), 3, 2, dueling=True), random(5, 4)
    variables, apply = filled(module, x), quick(module.apply)
    params = variables["params"]
    features = np.maximum(x @ params["torso"]["Dense_0"]["kernel"] + params["torso"]["Dense_0"]["bias"], 0)
    value = features @ params["value"]["kernel"] + params["value"]["bias"]
    advantage = (features @ params["advantage"]["kernel"] + params["advantage"]["bias"]).reshape(5, 3, 2)
    out = np.asarray(apply(variables, x))
    np.testing.assert_allclose(out, value[:, None] + advantage - advantage.mean(1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(out.mean(1), value, atol=1e-5)
    params["advantage"]["bias"] = params["advantage"]["bias"] + np.float32(100)
    np.testing.assert_allclose(apply(variables, x), out, atol=1e-4)


def test_without_an_rng_a_noisy_layer_is_its_mean():
    layer, x = NoisyDense(5), random(6, 16)
    variables = jax.tree.map(np.asarray, initial(layer, x))
    p = variables["params"]
    expected = x @ p["kernel"] + p["bias"]
    np.testing.assert_allclose(quick(layer.apply)(variables, x), expected, atol=1e-5)
    noisy = quick(lambda key: layer.apply(variables, x, rngs={"noise": key}))
    one, same, other = (np.asarray(noisy(jax.random.key(i))) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other) and not np.allclose(one, expected)
    # Its beginning: section 3.2 of the paper.
    assert (p["kernel_sigma"] == 0.5 / 4).all() and (p["bias_sigma"] == 0.5 / 4).all()
    for name in ("kernel", "bias"):
        assert (np.abs(p[name]) <= 1 / 4).all() and p[name].min() < 0 < p[name].max()
    assert np.abs(p["kernel"]).max() > 0.9 / 4


def test_noise_is_factorised():
    """One draw f(e_in) f(e_out)^T for the whole batch: of rank one, mean 0, variance E|e|^2 = 2 / pi."""
    n, m, sigma = 3, 4, 0.5
    layer = NoisyDense(m)
    spread = jnp.full((n, m), sigma)
    weights = {"kernel": jnp.zeros((n, m)), "bias": jnp.zeros(m), "kernel_sigma": spread, "bias_sigma": jnp.zeros(m)}

    def noise(key, bias):
        params = weights | {"bias_sigma": jnp.full(m, bias)}
        return layer.apply({"params": params}, jnp.eye(n + 1, n), rngs={"noise": key})  # the last row is zero

    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(quick(jax.vmap(lambda key: noise(key, 0.0)))(keys))
    matrix = drawn[:, :n]
    assert (drawn[:, n] == 0).all()
    minors = matrix[:, :1, :1] * matrix[:, 1:, 1:] - matrix[:, 1:, :1] * matrix[:, :1, 1:]
    assert np.abs(minors).max() < 1e-5
    deviation = sigma * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(matrix.mean(0), 0, atol=5 * deviation / np.sqrt(20_000))
    np.testing.assert_allclose((matrix**2).mean(0), sigma**2 * 2 / np.pi, rtol=0.05)
    # The bias shares e_out with the weights: b = sigma f(e_out), E b^2 = sigma^2 E|e| = sigma^2 sqrt(2 / pi).
    drawn = np.asarray(quick(jax.vmap(lambda key: noise(key, sigma)))(keys))
    bias, matrix = drawn[:, n], drawn[:, :n] - drawn[:, n:]
    np.testing.assert_allclose((bias**2).mean(0), sigma**2 * np.sqrt(2 / np.pi), rtol=0.05)
    assert np.abs(matrix[:, 0] * bias[:, :1] - matrix[:, 0, :1] * bias).max() < 1e-5


def test_noise_is_learned_in_streams_and_not_in_the_torso():
    module = QNetwork(MLP((6,)), 3, dueling=True, noisy=True, hidden=4)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(shapes(module, 4))}
    noisy = {name.split("'")[3] for name in names if "sigma" in name}
    assert noisy == {"advantage_hidden", "advantage", "value_hidden", "value"}


@pytest.mark.parametrize("shape", [(35, 84, 4), (84, 35, 4), (10, 10, 4), (4,), (84, 84)])
def test_what_is_no_image_or_too_small_is_refused(shape):
    with pytest.raises(UserError) as error:
        shapes(nature_cnn(), *shape)
    assert str(error.value) == f"this network takes images [H, W, C] of at least 36x36, not observations {shape}"


def test_the_smallest_images_are_taken():
    assert shapes(nature_cnn(), 36, 36, 4)["params"]["Dense_0"]["kernel"].shape == (64, 512)
    assert shapes(minatar_cnn(), 3, 3, 4)["params"]["Dense_0"]["kernel"].shape == (16, 128)


def test_bits_and_bytes_are_seen_as_numbers():
    rng = np.random.default_rng(0)
    bits, screens = rng.random((2, 4, 4, 2)) < 0.5, rng.integers(0, 256, (2, 4, 4, 2), np.uint8)
    for module in (ConvTorso(((3, 3, 1),), 5), MLP((5,))):
        variables, apply = filled(module, jnp.asarray(bits)), quick(module.apply)
        for seen in (bits, screens):
            expected = apply(variables, seen.astype(np.float32))
            np.testing.assert_allclose(apply(variables, seen), expected, rtol=1e-6)
            assert np.any(expected)
    scaled = ConvTorso(((3, 3, 1),), 5, scale=255.0)
    variables = filled(scaled, screens)
    expected = quick(scaled.clone(scale=1.0).apply)(variables, screens / np.float32(255))
    np.testing.assert_allclose(quick(scaled.apply)(variables, screens), expected, atol=1e-5)
    assert nature_cnn().scale == 255 and minatar_cnn().scale == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_policy_and_its_value(shared):
    module = ActorCritic(MLP((6,)), None if shared else MLP((7,)), 3)
    assert count(module, 4) == 5 * 6 + (0 if shared else 5 * 7) + 7 * 3 + (7 if shared else 8)
    x = random(64, 4)
    variables = filled(module, x)
    # The value's gradient reaches the policy's torso only where they share it.
    gradient = quick(jax.grad(lambda v: module.apply(v, x)[1].sum()))(variables)["params"]
    assert np.any(gradient["torso"]["Dense_0"]["kernel"]) == shared and np.any(gradient["value"]["kernel"])
    p = variables["params"]
    layer = p["torso" if shared else "critic_torso"]["Dense_0"]
    logits, value = quick(module.apply)(variables, x)
    judged = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(value, (judged @ p["value"]["kernel"] + p["value"]["bias"])[:, 0], atol=1e-4)
    features = np.maximum(x @ p["torso"]["Dense_0"]["kernel"] + p["torso"]["Dense_0"]["bias"], 0)
    np.testing.assert_allclose(logits, features @ p["policy"]["kernel"] + p["policy"]["bias"], atol=1e-4)


def test_a_policy_begins_with_nearly_equal_probabilities():
    module, x = ActorCritic(MLP((6,)), None, 3), random(64, 4)
    variables = initial(module, x)
    logits, value = quick(module.apply)(variables, x)
    assert np.abs(logits).max() < 0.1 < np.abs(value).max()
    kernel = np.asarray(variables["params"]["policy"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 1e-4 * np.eye(3), atol=1e-8)


def test_bfloat16_inside_gives_float32_outside():
    x = random(5, 4)
    network = QNetwork(MLP((6,), dtype=jnp.bfloat16), 3, noisy=True, dtype=jnp.bfloat16)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    apply = quick(lambda variables, key: network.apply(variables, x, rngs={"noise": key}))
    assert apply(filled(network, x), jax.random.key(1)).dtype == jnp.float32
    policy = ActorCritic(MLP((6,), dtype=jnp.bfloat16), None, 3, dtype=jnp.bfloat16)
    logits, value = jax.eval_shape(policy.apply, jax.eval_shape(policy.init, jax.random.key(0), x), x)
    assert logits.dtype == value.dtype == jnp.float32
