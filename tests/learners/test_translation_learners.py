"""pix2pix and CycleGAN: their losses written out, the buffer against a loop, devices, members and time."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.cyclegan import Buffer, cyclegan, exchange
from dlfx.learners.pix2pix import pix2pix
from tests.compiling import quick


class Pixelwise(nn.Module):
    """A generator that knows one pixel at a time."""

    channels: int = 1

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        return jnp.tanh(nn.Dense(self.channels)(nn.tanh(nn.Dense(4)(x))))


class Judge(nn.Module):
    """A critic of single pixels."""

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        return nn.Dense(1)(nn.tanh(nn.Dense(4)(x)))[..., 0]


@pytest.fixture
def batch():
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.uniform(key, (4, 3, 3, 1), minval=-1) for key in keys)
    return {"a": a, "b": b}


def paired(axis_name=None, **options):
    return pix2pix(Pixelwise(), Judge(), optax.adam(0.01), optax.adam(0.01), axis_name=axis_name, **options)


def unpaired(axis_name=None, **options):
    return cyclegan(
        Pixelwise(), Pixelwise(), Judge(), optax.adam(0.01), optax.adam(0.01), axis_name=axis_name, **options
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_losses_of_pix2pix(batch):
    learner = paired(distance_weight=7.0)
    state = quick(learner.init)(jax.random.key(1), batch)
    after, metrics = quick(learner.step)(state, batch)
    fake = Pixelwise().apply({"params": state.generator.params}, batch["a"])

    def judge(player, image):
        return np.asarray(Judge().apply({"params": player.params}, jnp.concatenate([batch["a"], image], -1)), float)

    real, made = sigmoid(judge(state.critic, batch["b"])), sigmoid(judge(state.critic, fake))
    critic = -(np.log(real).mean() + np.log(1 - made).mean()) / 2
    distance = np.abs(fake - batch["b"]).mean()
    generator = -np.log(sigmoid(judge(after.critic, fake))).mean() + 7 * distance
    np.testing.assert_allclose(metrics["critic_loss"], critic, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator_loss"], generator, rtol=1e-5)
    np.testing.assert_allclose(metrics["distance"], distance, rtol=1e-5)
    np.testing.assert_allclose([metrics["d_real"], metrics["d_fake"]], [real.mean(), made.mean()], rtol=1e-5)


def test_the_losses_of_cyclegan(batch):
    learner = unpaired(cycle_weight=3.0, identity_weight=2.0, buffer_size=0)
    state = quick(learner.init)(jax.random.key(1), batch)
    assert state.memory is None
    after, metrics = quick(learner.step)(state, batch)
    a, b = np.asarray(batch["a"]), np.asarray(batch["b"])

    def there(x):
        return np.asarray(Pixelwise().apply({"params": state.generator.params["ab"]}, x))

    def back(x):
        return np.asarray(Pixelwise().apply({"params": state.generator.params["ba"]}, x))

    def judge(player, side, x):
        return np.asarray(Judge().apply({"params": player.params[side]}, x))

    critic = sum(
        ((judge(state.critic, side, real) - 1) ** 2).mean() + (judge(state.critic, side, made) ** 2).mean()
        for side, real, made in (("a", a, back(b)), ("b", b, there(a)))
    )
    cycle = np.abs(back(there(a)) - a).mean() + np.abs(there(back(b)) - b).mean()
    identity = np.abs(there(b) - b).mean() + np.abs(back(a) - a).mean()
    generator = ((judge(after.critic, "b", there(a)) - 1) ** 2).mean() / 2
    generator += ((judge(after.critic, "a", back(b)) - 1) ** 2).mean() / 2
    np.testing.assert_allclose(metrics["critic_loss"], critic / 4, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator_loss"], generator + 3 * cycle + 2 * identity, rtol=1e-5)
    np.testing.assert_allclose([metrics["cycle"], metrics["identity"]], [cycle, identity], rtol=1e-5)


def test_the_buffer_against_a_loop():
    size, key = 3, jax.random.key(2)
    images = jnp.arange(1.0, 11.0).reshape(10, 1, 1, 1)
    buffer, given = exchange(Buffer(jnp.zeros((size, 1, 1, 1)), jnp.int32(0)), images, key)
    tosses = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5, (10,))
    places = jax.random.randint(jax.random.fold_in(key, 1), (10,), 0, size)
    held: list[float] = []
    expected = []
    for image, toss, place in zip(images.ravel(), tosses, places, strict=True):
        if len(held) < size:
            held.append(float(image))
            expected.append(float(image))
        elif toss:
            expected.append(held[place])
            held[place] = float(image)
        else:
            expected.append(float(image))
    assert expected != list(map(float, images.ravel()))
    np.testing.assert_array_equal(given.ravel(), expected)
    np.testing.assert_array_equal(buffer.images.ravel(), held)
    assert buffer.filled == size


@pytest.mark.parametrize("rule", [paired, unpaired])
def test_a_batch_split_over_devices_is_the_whole_one(rule, batch):
    state = rule().init(jax.random.key(3), batch)
    whole, metrics = quick(rule().step)(state, batch)
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    step = rule("data").step
    parts, told = quick(jax.vmap(step, (None, 0), axis_name="data"))(state, halves)
    for name in ("loss", "generator_grad_norm", "critic_grad_norm"):
        np.testing.assert_allclose(told[name], np.full(2, metrics[name]), rtol=1e-4)

    def arrays(state):
        return jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))

    for part, one in zip(arrays(parts), arrays(whole), strict=True):
        if part.shape[1:] == one.shape:
            np.testing.assert_allclose(part[0], one, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(part[0], part[1])


@pytest.mark.parametrize("rule", [paired, unpaired])
def test_members_and_time(rule, batch):
    """A population over 100 scanned steps: one trace, keys as they were, the same seed the same bits, losses fall."""
    traces = []
    learner = rule()

    def step(state, _):
        traces.append(1)
        return learner.step(state, batch)

    states = jax.vmap(learner.init, (0, None))(jax.vmap(jax.random.key)(jnp.array([0, 0, 1])), batch)
    run = quick(jax.vmap(lambda state: jax.lax.scan(step, state, None, 100)))
    after, metrics = run(states)
    run(states)
    assert len(traces) == 1
    assert (jax.random.key_data(after.key) == jax.random.key_data(states.key)).all() and (after.step == 100).all()
    first, second, third = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), after.generator) for i in range(3))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(third), strict=True))
    name = "distance" if rule is paired else "cycle"
    assert (metrics[name][:, -1] < metrics[name][:, 0]).all()
