"""Spoken digits: files read or refused, utterances joined right, every test recording exactly once."""

import io
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from dlfx.data import speech
from dlfx.ops import spectrogram
from dlfx.types import UserError

FSDD = Path(__file__).parents[3] / "shared/data/fsdd/recordings.tar"


def wav(samples, rate=8000, channels=1, width=2):
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2" if width == 2 else np.uint8).tobytes())
    return data.getvalue()


def recording(digit, index):
    return np.full(100 + 10 * digit + index, 100 * digit + index + 1, np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings")
    for digit in range(3):
        for index in range(8):
            (path / f"{digit}_anna_lena_{index}.wav").write_bytes(wav(recording(digit, index)))
    return path


@pytest.fixture(scope="module")
def parts(folder):
    return speech.read_digits(folder)


def test_a_directory_and_a_tar_file_are_read_and_split_by_index(folder, parts, tmp_path):
    with tarfile.open(tmp_path / "recordings.tar", "w") as archive:
        archive.add(folder, "recordings")
    packed = speech.read_digits(tmp_path / "recordings.tar")
    for part, other, indices in zip(parts, packed, (range(5, 8), range(5)), strict=True):
        assert set(part.take) == set(indices) and len(part.digit) == 3 * len(indices) and part.rate == 8000
        for k, (digit, index) in enumerate(zip(part.digit, part.take, strict=True)):
            piece = part.audio.values[part.audio.offsets[k] : part.audio.offsets[k + 1]]
            np.testing.assert_array_equal(piece, recording(digit, index))
        np.testing.assert_array_equal(part.audio.values, other.audio.values)
        np.testing.assert_array_equal(part.digit, other.digit)


def test_bad_recordings_are_refused(tmp_path, folder):
    path = tmp_path / "1_anna_0.wav"
    whole = wav(recording(1, 0))
    cases = {
        "16000 samples a second, not 8000": wav(recording(1, 0), rate=16000),
        "2 channels": wav(recording(1, 0)[:100], channels=2),
        "8 bits": wav(recording(1, 0) % 100, width=1),
        "truncated: 60 of 110": whole[:-100],
        "truncated: 0 of 0": wav([]),
        "not a wav file": b"RIFF, but what follows is not",
        "not a wav file.*too early": whole[:24],
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"1_anna_0.wav in .*{message}"):
            speech.read_digits(tmp_path)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="no training recordings"):
        speech.read_digits(tmp_path)
    path.rename(tmp_path / "one.wav")
    with pytest.raises(UserError, match="one.wav .*not named DIGIT_SPEAKER_INDEX"):
        speech.read_digits(tmp_path)
    (tmp_path / "one.wav").unlink()
    with pytest.raises(UserError, match="no wav files"):
        speech.read_digits(tmp_path)
    with pytest.raises(UserError, match="there is no directory"):
        speech.read_digits(tmp_path / "none")
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match="not a tar file"):
        speech.read_digits(tmp_path / "x.tar")


def said(batch, row):
    """What is heard: the runs of equal samples, as (digit, index) pairs."""
    audio = batch["audio"][row, : batch["audio_lengths"][row]]
    assert not batch["audio"][row, batch["audio_lengths"][row] :].any()
    heard, at = [], 0
    while at < len(audio):
        if audio[at] == 0:
            at += 1
            continue
        digit, index = divmod(int(audio[at]) - 1, 100)
        piece = recording(digit, index)
        np.testing.assert_array_equal(audio[at : at + len(piece)], piece)
        heard.append((digit, index))
        at += len(piece)
    return heard


def test_an_utterance_is_its_recordings_one_after_another(parts):
    stream = speech.training_stream(parts[0], 16, 2, 4, pause=0.01)
    batch = stream.host(2, 3)
    assert batch["audio"].shape == (16, 4 * (127 + 80))
    for row in range(16):
        heard = said(batch, row)
        count = batch["label_lengths"][row]
        assert 2 <= count <= 4 and [digit + 1 for digit, _ in heard] == batch["label"][row, :count].tolist()
        assert not batch["label"][row, count:].any() and all(index >= 5 for _, index in heard)
    fetched = stream.fetch((), batch)["audio"]
    np.testing.assert_array_equal(fetched * 32768, batch["audio"])


def test_utterances_are_a_function_of_seed_and_i_and_processes_share_them(parts):
    batch = speech.training_stream(parts[0], 8).host(2, 3)
    again = speech.training_stream(parts[0], 8).host(2, 3)
    halves = [speech.training_stream(parts[0], 8, process=p, processes=2).host(2, 3) for p in range(2)]
    for name in batch:
        np.testing.assert_array_equal(batch[name], again[name])
        np.testing.assert_array_equal(batch[name], np.concatenate([half[name] for half in halves]))
    for other in (speech.training_stream(parts[0], 8).host(2, 4), speech.training_stream(parts[0], 8).host(1, 3)):
        assert (other["label"] != batch["label"]).any()


def test_what_is_too_long_loses_its_last_digits(parts):
    stream = speech.training_stream(parts[0], 64, 4, 4, seconds=0.035, pause=0.001)
    batch = stream.host(0, 0)
    assert batch["audio"].shape == (64, 280)
    assert set(batch["label_lengths"]) == {2}  # of 105 to 127 samples each
    for row in range(64):
        assert len(said(batch, row)) == 2
    with pytest.raises(UserError, match="too short"):
        speech.training_stream(parts[0], 4, seconds=0.01)
    with pytest.raises(UserError, match="3 to 2 digits"):
        speech.training_stream(parts[0], 4, 3, 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_evaluation_has_every_recording_once(parts, processes):
    heard = []
    for process in range(processes):
        stream, batches = speech.evaluation_stream(parts[1], 4, 1, 3, process=process, processes=processes)
        for i in range(batches):
            batch = stream.host(0, i)
            for row in np.flatnonzero(batch["mask"]):
                heard += said(batch, row)
    assert sorted(heard) == [(digit, index) for digit in range(3) for index in range(5)]


def test_the_tones_can_be_told_apart_by_their_spectra():
    """The nearest mean of the log-mel features of the training part knows most of the test's tones."""
    train, test = speech.tone_digits()
    assert len(train.digit) == 400 and len(test.digit) == 200 and set(train.digit) == set(range(10))
    np.testing.assert_array_equal(speech.tone_digits()[0].audio.values, train.audio.values)

    def features(part):
        rows = []
        for start, end in zip(part.audio.offsets, part.audio.offsets[1:], strict=False):
            half = (end - start) // 2
            pieces = part.audio.values[start : start + half], part.audio.values[end - half : end]
            # Loudness, band by band, of the first and the second half.
            power = [np.abs(np.fft.rfft(piece / 32768, 2048)) ** 2 for piece in pieces]
            rows.append([np.log(p @ spectrogram.mel_filters(20, 2048, 8000)) for p in power])
        x = np.array(rows).reshape(len(rows), -1)
        return x - x.mean(1, keepdims=True)

    x, y = features(train), features(test)
    means = np.stack([x[train.digit == digit].mean(0) for digit in range(10)])
    found = ((y[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (found == test.digit).mean() > 0.6


@pytest.mark.skipif(not FSDD.exists(), reason="the Free Spoken Digit Dataset is not here")
def test_the_free_spoken_digits():
    train, test = speech.read_digits(FSDD)
    assert len(train.digit) == 2700 and len(test.digit) == 300
    assert (np.bincount(test.digit) == 30).all()
    batch = speech.training_stream(train, 8, seconds=4).host(0, 0)
    assert batch["audio"].shape == (8, 32000) and (batch["label_lengths"] >= 1).all()
