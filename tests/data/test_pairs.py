"""Pairs: each task against its definition; batches with and without pairs as functions of (seed, i)."""

import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.data import pairs
from dlfx.types import UserError


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 8, 10, 1)).astype(np.float32)


def test_edges_against_a_loop(images):
    outlines, same = pairs.edges(images, 0)
    assert same is images
    for i, j in [(0, 0), (3, 4), (7, 9)]:
        around = images[2, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        np.testing.assert_allclose(outlines[2, i, j], around.max() - images[2, i, j], rtol=1e-6)


def test_noise_is_of_the_seed(images):
    noisy, clean = pairs.noise(images, 1)
    assert clean is images and noisy.min() >= 0 and noisy.max() <= 1
    np.testing.assert_array_equal(noisy, pairs.noise(images, 1)[0])
    assert not np.array_equal(noisy, pairs.noise(images, 2)[0])


def test_slant_sets_upright_and_then_shears():
    """A leaning bar: upright it stands in one column, slanted it moves half a pixel a row."""
    image = np.zeros((1, 11, 21, 1), np.float32)
    for row in range(11):
        image[0, row, 10 + (row - 5) // 1 * 1] = 1  # one column to the right for every row down
    upright, slanted = pairs.slant(image, 0)
    columns = np.arange(21)
    for row in range(11):
        np.testing.assert_allclose((upright[0, row, :, 0] * columns).sum() / upright[0, row].sum(), 10, atol=0.01)
        place = (slanted[0, row, :, 0] * columns).sum() / slanted[0, row].sum()
        np.testing.assert_allclose(place, 10 - 0.5 * (row - 5), atol=0.01)


def test_from_columns_is_linear_between_columns_and_constant_beyond():
    ramp = np.broadcast_to(np.arange(5.0, dtype=np.float32)[:, None], (1, 2, 5, 1))
    places = np.array([[[-3, 0, 0.25, 3.5, 9], [4, 3, 2, 1, 0]]], float)
    np.testing.assert_allclose(pairs.from_columns(ramp, places)[..., 0], places.clip(0, 4))


def test_a_turn_of_a_face_moves_its_middle_to_the_side():
    width = 51
    stripe = np.zeros((1, 3, width, 1), np.float32)
    stripe[:, :, 25] = 1  # the nose
    turned, same = pairs.turn(stripe, 0)
    assert same is stripe
    # Painted on a cylinder, the point at angle 0 is seen at -sin(40 degrees) after the turn.
    expected = (1 - np.sin(np.deg2rad(40)) / 0.98) / 2 * (width - 1)
    assert abs(turned[0, 1, :, 0].argmax() - expected) < 1


def test_batches_with_pairs_keep_rows_together(images):
    stream = pairs.training_stream(images, 1 - images, 3, True, jnp.float32)
    for i in range(4):
        batch = stream.fetch(stream.arrays, stream.host(7, i))
        assert batch["a"].shape == (3, 8, 10, 1)
        np.testing.assert_allclose(batch["a"], -batch["b"], atol=0.01)
        np.testing.assert_array_equal(stream.host(7, i)["index"], stream.host(7, i)["index"])


def test_batches_without_pairs_go_through_both_sets_in_orders_of_their_own(images):
    stream = pairs.training_stream(images, images[:, ::-1], 3, False, jnp.float32)
    two = [stream.host(7, i) for i in range(2)]
    for side in "ab":
        assert sorted(np.concatenate([batch[side] for batch in two])) == list(range(6))
    assert any(not np.array_equal(stream.host(seed, 0)["a"], stream.host(seed, 0)["b"]) for seed in range(3))
    batch = stream.fetch(stream.arrays, two[0])
    np.testing.assert_allclose(batch["a"], 2 * images[two[0]["a"]] - 1, atol=0.005)


def test_evaluation_goes_through_all_once(images):
    stream, count = pairs.evaluation_stream(images, images, 4, jnp.float32)
    masks = np.concatenate([stream.host(0, i)["mask"] for i in range(count)])
    rows = np.concatenate([stream.host(0, i)["index"] for i in range(count)])
    assert count == 2 and masks.sum() == 6 and list(rows[masks > 0]) == list(range(6))
    assert stream.fetch(stream.arrays, stream.host(0, 0))["mask"].shape == (4,)


def test_processes_take_their_rows(images):
    whole = pairs.training_stream(images, images, 4, False, jnp.float32).host(0, 0)
    parts = [pairs.training_stream(images, images, 4, False, jnp.float32, p, 2).host(0, 0) for p in range(2)]
    for side in "ab":
        np.testing.assert_array_equal(np.concatenate([part[side] for part in parts]), whole[side])


def test_a_batch_larger_than_a_set(images):
    with pytest.raises(UserError, match="batch size 7 .* 6 training images"):
        pairs.training_stream(images, images, 7, True, jnp.float32)
