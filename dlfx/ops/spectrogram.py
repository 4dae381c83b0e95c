"""Log-mel spectrograms: how loud a sound is at every moment in bands as wide as the ear's."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array, UserError


def num_frames(samples: Array | int, frame: int, hop: int) -> Array | int:
    """How many whole frames fit so many samples: `(n - frame) // hop + 1`, and at least 0.

    Args:
      samples: a number or an array of them.
      frame: samples in a frame.
      hop: from the start of a frame to that of the next.
    """
    count = (samples - frame) // hop + 1
    return max(count, 0) if isinstance(count, int) else jnp.maximum(count, 0)


def frames(x: Array, frame: int, hop: int) -> Array:
    """Signals `[..., n]` in overlapping frames `[..., F, frame]`; samples behind the last whole frame are left out.

    Raises:
      UserError: if not one frame fits.
    """
    count = int(num_frames(x.shape[-1], frame, hop))
    if not count:
        raise UserError(f"a signal of {x.shape[-1]} samples is shorter than one frame of {frame}")
    return x[..., np.arange(count)[:, None] * hop + np.arange(frame)]


def hann(length: int) -> np.ndarray:
    """The periodic Hann window `[length]`: `0.5 - 0.5 cos(2 pi k / length)`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


SLANEY_STEP = np.log(6.4) / 27  # of the logarithm of the frequency, for a mel above 1,000 Hz


def hz_to_mel(hz: np.ndarray | float, scale: str = "htk") -> np.ndarray:
    """Frequencies to mels.

    `htk`: `2595 log10(1 + f / 700)`. `slaney`: `3 f / 200` up to 1,000 Hz, above it `15 + 27 log(f / 1000) / log 6.4`.

    Source: htk: Young et al. 2006, The HTK Book, section 5.4; slaney: Slaney 1998, Auditory Toolbox, version 2.
    """
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < 1000, 3 * hz / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) / SLANEY_STEP)


def mel_to_hz(mel: np.ndarray | float, scale: str = "htk") -> np.ndarray:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(SLANEY_STEP * (np.maximum(mel, 15) - 15)))


def mel_filters(
    bands: int, fft: int, rate: int, low: float = 0.0, high: float = 0.0, scale: str = "htk", equal_area: bool = False
) -> np.ndarray:
    """Triangles `[fft // 2 + 1, bands]` over frequency, equally wide in mels, each from its neighbours' tops.

    With tops `f_0 ... f_{M+1}`, equally far apart in mels between low and high, band m weighs a frequency f by
    `max(0, min((f - f_{m-1}) / (f_m - f_{m-1}), (f_{m+1} - f) / (f_{m+1} - f_m)))`.

    Args:
      bands: M.
      fft: points of the Fourier transform.
      rate: samples a second.
      low: Hz where the first band begins.
      high: Hz where the last one ends; 0: half the rate.
      scale: `htk` or `slaney`, see `hz_to_mel`.
      equal_area: divides a band by half its width in Hz, so that white noise is equally loud in all.

    Raises:
      UserError: if a band is so narrow that it holds no frequency of the transform, or the limits are impossible.
    """
    high = high or rate / 2
    if not 0 <= low < high <= rate / 2:
        raise UserError(f"mel bands from {low} to {high} Hz are not possible at {rate} samples a second")
    tops = mel_to_hz(np.linspace(hz_to_mel(low, scale), hz_to_mel(high, scale), bands + 2), scale)
    hz = np.arange(fft // 2 + 1)[:, None] * rate / fft
    rising = (hz - tops[:-2]) / (tops[1:-1] - tops[:-2])
    falling = (tops[2:] - hz) / (tops[2:] - tops[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    if not filters.any(0).all():
        raise UserError(
            f"{bands} mel bands are too many for a transform of {fft} points at {rate} samples a second: band "
            f"{int(np.argmin(filters.any(0)))} is empty; take fewer bands or longer frames"
        )
    return filters * 2 / (tops[2:] - tops[:-2]) if equal_area else filters


def log_mel(
    x: Array,
    rate: int,
    frame: int,
    hop: int,
    bands: int = 40,
    fft: int = 0,
    low: float = 0.0,
    high: float = 0.0,
    scale: str = "htk",
    floor: float = 1e-6,
) -> Array:
    """The logarithm of the energy in mel bands, frame by frame.

    `y[t, m] = log(max(floor, sum_k |rfft(w x_t)[k]|^2 filters[k, m]))`, with the Hann window w

    Args:
      x: signals `[..., n]` between -1 and 1.
      rate: samples a second.
      frame: samples in a frame; 25 ms are usual.
      hop: from the start of a frame to that of the next; 10 ms are usual.
      bands: M.
      fft: points of the Fourier transform, zeros behind the frame; 0: the power of two that fits.
      low, high, scale: see `mel_filters`.
      floor: of the energy; what is silent in itself is not infinitely quiet.

    Returns:
      `[..., F, M]` with F of `num_frames`, in float32 at least.

    Source: Davis and Mermelstein 1980, Comparison of Parametric Representations for Monosyllabic Word Recognition, up
      to the logarithm.
    """
    fft = fft or 1 << (frame - 1).bit_length()
    if fft < frame:
        raise UserError(f"a transform of {fft} points is shorter than the frame of {frame} samples")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    spectrum = jnp.fft.rfft(frames(x, frame, hop) * hann(frame).astype(x.dtype), fft)
    energy = spectrum.real**2 + spectrum.imag**2
    filters = mel_filters(bands, fft, rate, low, high, scale).astype(x.dtype)
    # At full precision: the logarithm would show the rounding of faster products in every quiet band.
    return jnp.log(jnp.maximum(jnp.matmul(energy, filters, precision=lax.Precision.HIGHEST), floor))


def standardise(features: Array, lengths: Array) -> Array:
    """Every band of every utterance to mean 0 and variance 1 over its own frames, and 0 at padding.

    Args:
      features: `[B, F, M]`.
      lengths: `[B]`, frames.
    """
    real = (jnp.arange(features.shape[1]) < lengths[:, None])[..., None]
    count = jnp.maximum(lengths, 1)[:, None, None].astype(features.dtype)
    centred = jnp.where(real, features, 0)
    centred = jnp.where(real, features - centred.sum(1, keepdims=True) / count, 0)
    variance = (centred**2).sum(1, keepdims=True) / count
    return centred * lax.rsqrt(variance + 1e-5)
