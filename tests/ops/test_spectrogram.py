"""Log-mel features against NumPy written out, PyTorch's transform and published figures of the mel scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops import spectrogram
from dlfx.types import UserError
from tests.compiling import quick

X = np.random.default_rng(0).uniform(-1, 1, (2, 700)).astype(np.float32)


def reference(x, rate, frame, hop, bands, fft, floor):
    """Frame by frame, frequency by frequency, with the Fourier sum written out and HTK's mels."""
    tops = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    rows = []
    for start in range(0, len(x) - frame + 1, hop):
        piece = [x[start + k] * np.sin(np.pi * k / frame) ** 2 for k in range(frame)]
        row = np.zeros(bands)
        for j in range(fft // 2 + 1):
            power = abs(sum(v * np.exp(-2j * np.pi * j * k / fft) for k, v in enumerate(piece))) ** 2
            hz = j * rate / fft
            for m in range(bands):
                below, top, above = tops[m : m + 3]
                if below < hz <= top:
                    row[m] += power * (hz - below) / (top - below)
                elif top < hz < above:
                    row[m] += power * (above - hz) / (above - top)
        rows.append(np.log(np.maximum(row, floor)))
    return np.array(rows)


def test_log_mel_is_the_sum_written_out():
    y = quick(lambda x: spectrogram.log_mel(x, 1000, 50, 130, bands=6))(X)
    expected = np.stack([reference(x.astype(float), 1000, 50, 130, 6, 64, 1e-6) for x in X])
    assert y.shape == expected.shape == (2, 6, 6) and y.dtype == jnp.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_in_float64_it_is_exact():
    with jax.enable_x64(True):
        y = spectrogram.log_mel(jnp.asarray(X[0], jnp.float64), 1000, 50, 300, bands=6)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, reference(X[0].astype(float), 1000, 50, 300, 6, 64, 1e-6), rtol=1e-11)


def test_the_power_spectrum_is_pytorchs():
    torch = pytest.importorskip("torch")
    stft = torch.stft(torch.tensor(X), 64, 16, 64, torch.hann_window(64), center=False, return_complex=True)
    expected = stft.abs().numpy() ** 2
    framed = spectrogram.frames(jnp.asarray(X), 64, 16) * spectrogram.hann(64).astype(np.float32)
    power = np.abs(np.fft.rfft(framed)) ** 2
    np.testing.assert_allclose(power, np.moveaxis(expected, 1, 2), rtol=1e-3, atol=1e-3)


def test_silence_has_the_floor_and_finite_gradients():
    y, gradient = jax.value_and_grad(lambda x: spectrogram.log_mel(x, 8000, 200, 80).sum())(jnp.zeros(400))
    np.testing.assert_allclose(y, 3 * 40 * np.log(1e-6), rtol=1e-5)
    assert (gradient == 0).all()


def test_bfloat16_is_computed_in_float32():
    y = spectrogram.log_mel(jnp.asarray(X, jnp.bfloat16), 1000, 50, 130, bands=6)
    assert y.dtype == jnp.float32


def test_the_scales_have_their_published_figures():
    # librosa's documentation: hz_to_mel([110, 220, 440]), mel_to_hz([1, 2, 3, 4, 5]) of Slaney's scale.
    np.testing.assert_allclose(spectrogram.hz_to_mel(np.array([110, 220, 440]), "slaney"), [1.65, 3.3, 6.6])
    expected = [66.667, 133.333, 200.0, 266.667, 333.333]
    np.testing.assert_allclose(spectrogram.mel_to_hz(np.arange(1, 6), "slaney"), expected, atol=5e-4)
    np.testing.assert_allclose(spectrogram.hz_to_mel(6400, "slaney"), 42)  # 27 steps above 1,000 Hz
    np.testing.assert_allclose(spectrogram.hz_to_mel(1000, "htk"), 1000, atol=0.02)
    for scale in ("htk", "slaney"):
        hz = np.linspace(0, 8000, 33)
        np.testing.assert_allclose(spectrogram.mel_to_hz(spectrogram.hz_to_mel(hz, scale), scale), hz, atol=1e-9)


def test_the_filters_are_those_published():
    """The first of librosa's 128 filters of equal area at 22,050 Hz and 2,048 points, as mel_filter documents them."""
    filters = spectrogram.mel_filters(128, 2048, 22050, scale="slaney", equal_area=True)
    assert filters.shape == (1025, 128)
    first = [0, 0.016182853208219942, 0.032365706416439884, 0.028990088037379964, 0.012807234829160026, 0]
    second = [0, 0, 0, 0.009779235793639925, 0.025962089001859864, 0.035393705451959974, 0.01921085224374004]
    np.testing.assert_allclose(filters[:6, 0], first, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(filters[:7, 1], second, rtol=1e-9, atol=1e-12)


def test_a_tone_is_loudest_in_its_band():
    tone = np.sin(2 * np.pi * 1500 * np.arange(800) / 8000).astype(np.float32)
    y = spectrogram.log_mel(jnp.asarray(tone), 8000, 200, 80, bands=20)
    tops = spectrogram.mel_to_hz(np.linspace(0, spectrogram.hz_to_mel(4000), 22))[1:-1]
    assert set(np.asarray(y.argmax(-1))) == {int(np.argmin(np.abs(tops - 1500)))}


def test_frames_are_counted_and_padding_changes_nothing():
    for n in (49, 50, 179, 180, 181, 700):
        count = len(range(0, n - 50 + 1, 130))
        assert spectrogram.num_frames(n, 50, 130) == count == int(spectrogram.num_frames(jnp.int32(n), 50, 130))
    longer = np.pad(X, ((0, 0), (0, 300)))
    y = spectrogram.log_mel(jnp.asarray(longer), 1000, 50, 130, bands=6)
    lengths = spectrogram.num_frames(jnp.array([700, 700]), 50, 130)
    np.testing.assert_allclose(
        spectrogram.standardise(y, lengths)[:, :6],
        spectrogram.standardise(spectrogram.log_mel(jnp.asarray(X), 1000, 50, 130, bands=6), lengths),
        atol=1e-5,
    )


def test_standardised_features_have_mean_0_and_variance_1_over_what_is_real():
    features = jnp.asarray(np.random.default_rng(1).normal(3, 5, (3, 20, 4)).astype(np.float32))
    lengths = jnp.array([20, 7, 0])
    y = np.asarray(spectrogram.standardise(features, lengths))
    for row, length in zip(y, lengths, strict=True):
        assert not row[length:].any() and np.isfinite(row).all()
        if length:
            np.testing.assert_allclose(row[:length].mean(0), 0, atol=1e-5)
            np.testing.assert_allclose(row[:length].var(0), 1, atol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="80 mel bands are too many.*64 points"):
        spectrogram.mel_filters(80, 64, 8000)
    with pytest.raises(UserError, match="5000"):
        spectrogram.mel_filters(10, 256, 8000, high=5000)
    with pytest.raises(UserError, match="100 samples is shorter"):
        spectrogram.frames(jnp.zeros(100), 200, 80)
    with pytest.raises(UserError, match="128 points is shorter"):
        spectrogram.log_mel(jnp.zeros(400), 8000, 200, 80, fft=128)
