"""Batches: a pure function of (seed, i), wherever the examples wait and however many processes share them."""

import functools

import jax
import numpy as np
import pytest

from dlfx.data import augment, batches, sources
from dlfx.types import UserError, example_keys


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 4, 4, 1)).astype(np.uint8)
    return sources.from_arrays("noise", images, np.arange(50) % 10, 10)


def prepare(image):
    return batches.preprocess(image, 0.5, 0.25, 0, "pad")


def realised(stream, seed, i):
    return jax.tree.map(np.asarray, stream.fetch(stream.arrays, stream.host(seed, i)))


def test_an_epoch_visits_every_example_once_and_the_next_in_another_order():
    epochs = [np.concatenate([batches.order(3, i, 8, 40) for i in range(e * 5, e * 5 + 5)]) for e in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
    assert (epochs[0] != epochs[1]).any()


def test_batch_i_depends_on_seed_and_i_alone():
    later = batches.order(1, 7, 8, 40)
    batches._permutation.cache_clear()
    np.testing.assert_array_equal(batches.order(1, 7, 8, 40), later)
    assert (batches.order(2, 7, 8, 40) != later).any()


def test_the_order_is_the_one_that_published_runs_used():
    """A change of this order changes every figure of the README: it must not come by accident."""
    np.testing.assert_array_equal(batches.order(0, 0, 8, 40), [33, 16, 11, 26, 7, 8, 27, 5])


def test_an_epochs_short_end_is_left_out():
    seen = np.concatenate([batches.order(0, i, 8, 43) for i in range(5)])
    assert len(set(seen)) == 40


def test_device_and_host_placement_give_the_same_batches(source):
    device = batches.training_stream(source, 16, prepare, "device")
    host = batches.training_stream(source, 16, prepare, "host")
    for i in (0, 2, 5):
        jax.tree.map(np.testing.assert_array_equal, realised(device, 4, i), realised(host, 4, i))
    index = batches.order(4, 5, 16, 50)
    batch = realised(host, 4, 5)
    np.testing.assert_array_equal(batch["label"], index % 10)
    np.testing.assert_allclose(batch["image"], (source.read(index)["image"] / 255 - 0.5) / 0.25, rtol=1e-6, atol=1e-6)


def test_processes_share_the_batch_of_one(source):
    whole = realised(batches.training_stream(source, 16, prepare), 0, 1)
    parts = [realised(batches.training_stream(source, 16, prepare, process=p, processes=4), 0, 1) for p in range(4)]
    jax.tree.map(lambda w, *p: np.testing.assert_array_equal(w, np.concatenate(p)), whole, *parts)


def test_prefetch_keeps_the_order_and_the_start(source):
    stream = batches.training_stream(source, 16, prepare, "host")
    ahead = list(stream.prefetch(functools.partial(stream.host, 0), range(3, 9)))
    assert len(ahead) == 6
    for i, batch in zip(range(3, 9), ahead, strict=True):
        np.testing.assert_array_equal(batch["label"], stream.host(0, i)["label"])


def test_augmentation_on_the_host_equals_the_learners(source):
    change = augment.parse(["flip", "crop:1", "noise:0.1"])
    plain = realised(batches.training_stream(source, 16, prepare), 5, 3)
    first_of_second_process = 8
    keys = example_keys(jax.random.key(5), 3, 0, 16)
    wanted = jax.jit(jax.vmap(change))(keys, plain["image"])
    stream = batches.training_stream(source, 16, prepare, "host", change, process=1, processes=2)
    np.testing.assert_allclose(stream.host(5, 3)["image"], wanted[first_of_second_process:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("placement", ["device", "host"])
def test_evaluation_counts_every_example_once(source, placement):
    stream, number = batches.evaluation_stream(source, 16, prepare, placement)
    got = [realised(stream, 0, i) for i in range(number)]
    assert number == 4 and all(len(batch["label"]) == 16 for batch in got)
    mask = np.concatenate([batch["mask"] for batch in got])
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in got])[mask > 0], np.arange(50) % 10)


@pytest.mark.parametrize("size", [0, 51])
def test_impossible_batch_sizes_are_refused(source, size):
    with pytest.raises(UserError, match=f"batch size {size} is not possible.* 50 training examples"):
        batches.training_stream(source, size, prepare)


def test_a_batch_that_processes_do_not_divide_is_refused(source):
    with pytest.raises(UserError, match="batch of 16 cannot be shared evenly by 3"):
        batches.training_stream(source, 16, prepare, process=0, processes=3)


def test_preprocess_pads_crops_and_resizes():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    padded = batches.preprocess(image, 0.0, 1.0, 6, "pad")
    np.testing.assert_array_equal(padded[0, ..., 0], np.pad(image[0, ..., 0], 1))
    np.testing.assert_array_equal(batches.preprocess(image, 0.0, 1.0, 2, "pad")[0, ..., 0], image[0, 1:3, 1:3, 0])
    ramp = batches.preprocess(image, 0.0, 1.0, 8, "bilinear")[0, 4, 1:-1, 0]
    np.testing.assert_allclose(np.diff(ramp), 0.5, rtol=1e-5)  # a linear ramp stays linear inside
    np.testing.assert_allclose(batches.preprocess(image, 1.0, 2.0, 0, "pad"), (image - 1) / 2)
