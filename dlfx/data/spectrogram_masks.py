"""Augmentation of spectrograms, as pure functions of (key, features)."""

import jax
import jax.numpy as jnp

from dlfx.types import Array, Key


def mask_spectrogram(
    key: Key, features: Array, lengths: Array, count: int = 2, frames: int = 10, bands: int = 8, share: float = 0.2
) -> Array:
    """Hides some stretches of time and some of frequency, whose values become 0, the mean of standardised features.

    A stretch is `w ~ U{0 ... W}` wide and begins at `U{0 ... n - w}`, n what there is: of frames at most
    `min(frames, share n)` are hidden at once, so that no short utterance is lost; of bands at most `bands`.

    Args:
      key: of this batch.
      features: `[B, F, M]`, each utterance's masks are its own.
      lengths: `[B]`, frames.
      count: stretches of each kind.
      frames: the widest in time; 0: none.
      bands: the widest in frequency; 0: none.
      share: of an utterance's frames that one stretch may hide.

    Source: Park et al. 2019, SpecAugment (arXiv:1904.08779), section 2, without warping.
    """
    time, frequency = jax.random.split(key)
    batch, total, channels = features.shape
    widest = jnp.minimum(frames, (share * lengths).astype(jnp.int32))
    hidden = _stretches(time, count, lengths, widest, total)[:, :, None]
    full = jnp.full(batch, channels)
    hidden |= _stretches(frequency, count, full, jnp.minimum(bands, full), channels)[:, None]
    return jnp.where(hidden, 0, features)


def _stretches(key: Key, count: int, lengths: Array, widest: Array, size: int) -> Array:
    """`[B, size]` bool, true within any of the stretches."""
    shape = (count, len(lengths))
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, shape, 0, widest + 1)
    start = jax.random.randint(start_key, shape, 0, jnp.maximum(lengths - width, 0) + 1)
    at = jnp.arange(size)[:, None, None]
    return ((at >= start) & (at < start + width)).any(1).T
