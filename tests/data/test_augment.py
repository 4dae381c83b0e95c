"""Augmentation: pure in the key, exact in its geometry, right in its statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.data import augment
from dlfx.types import UserError

IMAGE = jnp.arange(60.0).reshape(5, 4, 3)
KEYS = jax.random.split(jax.random.key(0), 400)


def test_flip_is_an_involution_and_comes_half_the_time():
    np.testing.assert_array_equal(IMAGE[:, ::-1][:, ::-1], IMAGE)
    flipped = jax.vmap(augment.flip, (0, None))(KEYS, IMAGE)
    changed = (flipped != IMAGE).any((1, 2, 3))
    assert 160 < changed.sum() < 240
    np.testing.assert_array_equal(flipped[changed], jnp.broadcast_to(IMAGE[:, ::-1], flipped[changed].shape))


def test_crop_is_a_window_of_the_padded_image_and_every_window_comes():
    padded = np.pad(np.asarray(IMAGE), ((2, 2), (2, 2), (0, 0)), mode="edge")
    windows = {padded[y : y + 5, x : x + 4].tobytes() for y in range(5) for x in range(5)}
    crops = np.asarray(jax.vmap(lambda key: augment.crop(key, IMAGE, 2))(KEYS))
    assert {crop.tobytes() for crop in crops} == windows


def test_noise_has_the_scale_asked_for():
    noise = jax.vmap(lambda key: augment.noise(key, IMAGE, 0.3))(KEYS) - IMAGE
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01


def test_cutout_clears_one_square_clipped_at_the_border():
    image = jnp.ones((9, 9, 1)).at[0, 0, 0].set(10.0)
    cut = jax.vmap(lambda key: augment.cutout(key, image, 3))(KEYS) == image.mean()
    sizes = cut[..., 0].sum((1, 2))
    assert sizes.max() == 9 and set(np.unique(sizes)) == {4, 6, 9}
    hole = np.argwhere(cut[int(sizes.argmax()), ..., 0])
    assert (np.ptp(hole, axis=0) == 2).all()


def test_equal_keys_give_equal_images_and_parts_have_keys_of_their_own():
    change = augment.parse(["flip", "crop:1", "noise:0.1", "cutout:2"])
    one, again, other = (change(jax.random.key(k), IMAGE) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    np.testing.assert_array_equal(
        augment.parse(["noise:1", "noise:1"])(KEYS[0], IMAGE),
        augment.noise(jax.random.fold_in(KEYS[0], 1), augment.noise(jax.random.fold_in(KEYS[0], 0), IMAGE, 1.0), 1.0),
    )


def test_nothing_asked_is_nothing_done():
    assert augment.parse([]) is None and augment.parse([""]) is None


@pytest.mark.parametrize(
    "text", ["crop", "crop:x", "crop:-1", "crop:0", "flip:2", "noise:nan", "cutout:inf", "crop:1.5"]
)
def test_malformed_amounts_are_refused(text):
    with pytest.raises(UserError, match="must be written"):
        augment.parse([text])


def test_unknown_names_are_refused_with_the_closest():
    with pytest.raises(UserError, match="unknown augmentation 'cutot'; did you mean cutout"):
        augment.parse(["cutot:3"])
