"""Spoken digits: recordings from wav files, or tones that stand for them, joined to utterances by (seed, i)."""

import io
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlfx.data.batches import process_slice
from dlfx.data.sequences import Ragged
from dlfx.types import Batch, Stream, UserError

UTTERANCES = 0xC2B2AE35  # keeps these draws apart from every other use of the seed
TEST_INDICES = 5  # recordings 0 ... 4 of every speaker and digit are for the test


class Recordings(NamedTuple):
    """Recordings of one digit each.

    Attributes:
      name: what to call them.
      rate: samples a second.
      audio: the samples of every recording, int16.
      digit: `[n]` int32, what is said, 0 to 9.
      take: `[n]` int32, which of the recordings of a speaker and digit it is.
    """

    name: str
    rate: int
    audio: Ragged
    digit: np.ndarray
    take: np.ndarray


def read_wav(data: bytes, name: str, rate: int) -> np.ndarray:
    """The samples `[n]` int16 of a wav file of one channel and 16 bits.

    Raises:
      UserError: if it is anything else, of another rate, empty or truncated.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, found, count = file.getparams()[:4]
            samples = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise UserError(f"{name} is not a wav file of plain samples ({str(error) or 'it ends too early'})") from None
    if channels != 1:
        raise UserError(f"{name} has {channels} channels; only mono is read: mix it down first")
    if width != 2:
        raise UserError(f"{name} has {8 * width} bits a sample; only 16 are read: convert it first")
    if found != rate:
        raise UserError(f"{name} has {found} samples a second, not {rate}: resample it first")
    if len(samples) < 2 * count or not count:
        raise UserError(f"{name} is truncated: {len(samples) // 2} of {count} samples")
    return np.frombuffer(samples, "<i2").astype(np.int16)


def read_digits(path: str | Path, rate: int = 8000) -> tuple[Recordings, Recordings]:
    """Spoken digits from a directory or a tar file of `DIGIT_SPEAKER_INDEX.wav`, as (train, test).

    Recordings of index 0 to 4 are for the test, as the Free Spoken Digit Dataset has it.

    Raises:
      UserError: if there are none, a name is not of that form, a part is empty, or see `read_wav`.
    """
    found = []
    for name, data in _files(Path(path)):
        parts = Path(name).stem.split("_")
        if len(parts) < 3 or not (parts[0].isdecimal() and int(parts[0]) < 10 and parts[-1].isdecimal()):
            raise UserError(f"{name} in {path} is not named DIGIT_SPEAKER_INDEX.wav, such as 7_jackson_32.wav")
        key = (int(parts[-1]), int(parts[0]), "_".join(parts[1:-1]))
        found.append((key, read_wav(data, f"{name} in {path}", rate)))
    if not found:
        raise UserError(f"there are no wav files in {path}")
    found.sort(key=lambda row: row[0])
    digits = np.array([digit for (_, digit, _), _ in found], np.int32)
    indices = np.array([index for (index, _, _), _ in found], np.int32)
    return _split(Path(path).name, rate, [samples for _, samples in found], digits, indices)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.wav")):
            yield file.name, file.read_bytes()
        return
    if not path.is_file():
        raise UserError(f"there is no directory or tar file of recordings {path}")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".wav"):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield Path(member.name).name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is not a tar file that can be read ({error})") from None


def _split(
    name: str, rate: int, samples: list[np.ndarray], digits: np.ndarray, indices: np.ndarray
) -> tuple[Recordings, Recordings]:
    parts = []
    for part, chosen in (("training", indices >= TEST_INDICES), ("test", indices < TEST_INDICES)):
        rows = [samples[k] for k in np.flatnonzero(chosen)]
        if not rows:
            raise UserError(f"{name} has no {part} recordings: index 0 to {TEST_INDICES - 1} is for the test")
        audio = Ragged(np.concatenate(rows), np.cumsum([0, *(len(row) for row in rows)]))
        parts.append(Recordings(name, rate, audio, digits[chosen], indices[chosen]))
    return parts[0], parts[1]


def tone_digits(rate: int = 8000, speakers: int = 4, each: int = 15) -> tuple[Recordings, Recordings]:
    """A stand-in for spoken digits without a download, as (train, test): they are made, and no speech.

    A digit is two tones one after the other, each with two overtones: the first is one of two, the second one of five,
    and no digit shares both. Speakers differ in pitch by up to a third, recordings in length, loudness and noise.
    """
    rng = np.random.Generator(np.random.Philox(key=[0, UTTERANCES]))
    pitch = np.exp(rng.uniform(-0.15, 0.15, speakers))
    samples, digits, indices = [], [], []
    for index, digit, speaker in np.ndindex(each, 10, speakers):
        pieces = []
        for hz in (300 * (1 + digit // 5), 400 + 140 * (digit % 5)):
            n = int(rate * rng.uniform(0.06, 0.12))
            phase = 2 * np.pi * hz * pitch[speaker] * np.exp(rng.normal(0, 0.02)) * np.arange(n) / rate
            tone = sum(np.sin(k * phase + rng.uniform(0, 2 * np.pi)) / k for k in (1, 2, 3))
            pieces.append(tone * np.hanning(n) ** 0.5)
        sound = np.concatenate(pieces)
        sound = 0.2 * rng.uniform(0.5, 1) * (sound + rng.normal(0, 0.1, len(sound)))
        samples.append((32767 * sound.clip(-1, 1)).astype(np.int16))
        digits.append(digit)
        indices.append(index)
    return _split("tones", rate, samples, np.array(digits, np.int32), np.array(indices, np.int32))


class Plan(NamedTuple):
    """Which recordings make which utterances.

    Attributes:
      recording: `[B, K]`, -1 where an utterance has fewer.
      pause: `[B, K]`, samples of silence before each.
    """

    recording: np.ndarray
    pause: np.ndarray


def joined(recordings: Recordings, plan: Plan, samples: int) -> Batch:
    """Utterances of a plan, silence behind their ends.

    Returns:
      `{"audio": [B, samples] int16, "audio_lengths": [B], "label": [B, K], "label_lengths": [B]}`; a label is the digit
      and one, and 0 is padding, which leaves 0 to the blank of CTC.
    """
    rows, most = plan.recording.shape
    audio, lengths = np.zeros((rows, samples), np.int16), np.zeros(rows, np.int32)
    values, offsets = recordings.audio
    for row in range(rows):
        at = 0
        for k, pause in zip(plan.recording[row], plan.pause[row], strict=True):
            if k >= 0:
                at += pause
                piece = values[offsets[k] : offsets[k + 1]]
                audio[row, at : at + len(piece)] = piece
                at += len(piece)
        lengths[row] = at
    spoken = plan.recording >= 0
    label = np.where(spoken, recordings.digit[plan.recording] + 1, 0).astype(np.int32)
    return {"audio": audio, "audio_lengths": lengths, "label": label, "label_lengths": spoken.sum(1).astype(np.int32)}


def to_float(batch: Batch) -> Batch:
    """A batch with its 16-bit audio as float32 in [-1, 1)."""
    return {**batch, "audio": batch["audio"].astype(np.float32) / 32768}


def _check(shortest: int, most: int) -> None:
    if not 1 <= shortest <= most:
        raise UserError(f"utterances of {shortest} to {most} digits are not possible")


def training_stream(
    recordings: Recordings,
    batch_size: int,
    shortest: int = 1,
    most: int = 5,
    seconds: float = 0.0,
    pause: float = 0.1,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """New utterances in every batch, each of some recordings drawn at random with pauses between them.

    Args:
      recordings: the training part.
      batch_size: utterances in a batch, over all processes.
      shortest: the fewest digits of an utterance.
      most: the most.
      seconds: how long the arrays are; an utterance that would be longer loses its last digits. 0: as long as any.
      pause: the longest silence before a digit, in seconds.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of `{"audio": [B, n] float32, "audio_lengths": [B], "label": [B, most], "label_lengths": [B]}`, see
      `joined`.

    Raises:
      UserError: if the counts are impossible, a recording alone is too long, or the processes do not divide the batch.
    """
    _check(shortest, most)
    mine = process_slice(batch_size, process, processes)
    lengths = recordings.audio.lengths
    silence = int(pause * recordings.rate)
    samples = int(seconds * recordings.rate) or most * (int(lengths.max()) + silence)
    if samples < lengths.max() + silence:
        raise UserError(
            f"{seconds} seconds are too short: the longest recording has {lengths.max() / recordings.rate:.2f}, and "
            f"the pause before it up to {pause}"
        )

    def host(seed: int, i: int) -> Batch:
        rng = np.random.Generator(np.random.Philox(key=[seed, UTTERANCES], counter=[0, 0, 0, i]))
        chosen = rng.integers(0, len(lengths), (batch_size, most))
        pauses = rng.integers(0, silence + 1, (batch_size, most))
        wanted = np.arange(most) < rng.integers(shortest, most + 1, batch_size)[:, None]
        fits = np.cumsum(lengths[chosen] + pauses, 1) <= samples
        plan = Plan(np.where(wanted & fits, chosen, -1)[mine], pauses[mine])
        return joined(recordings, plan, samples)

    return Stream(host, (), lambda _, batch: to_float(batch))


def evaluation_stream(
    recordings: Recordings,
    batch_size: int,
    shortest: int = 1,
    most: int = 5,
    pause: float = 0.1,
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """Every recording exactly once, in utterances that are always the same: (stream, number of batches).

    Args: as of `training_stream`; only the last utterance may be shorter than `shortest`.

    Returns:
      The stream of the batches of `training_stream` with `mask [b]`, 1 for an utterance and 0 for filling.
    """
    _check(shortest, most)
    mine = process_slice(batch_size, process, processes)
    rng = np.random.Generator(np.random.Philox(key=[1, UTTERANCES], counter=[0, 0, 1, 0]))
    left = rng.permutation(len(recordings.digit)).tolist()
    rows = []
    while left:
        count = int(rng.integers(shortest, most + 1))
        rows.append(left[:count] + [-1] * (most - len(left[:count])))
        left = left[count:]
    plan = Plan(np.array(rows), rng.integers(0, int(pause * recordings.rate) + 1, (len(rows), most)))
    spoken = plan.recording >= 0
    samples = int(np.where(spoken, recordings.audio.lengths[plan.recording] + plan.pause, 0).sum(1).max())

    def host(seed: int, i: int) -> Batch:
        index = np.arange(i * batch_size, (i + 1) * batch_size)[mine]
        real = index < len(rows)
        index = np.where(real, index, 0)
        batch = joined(recordings, Plan(plan.recording[index], plan.pause[index]), samples)
        return {**batch, "mask": real.astype(np.float32)}

    return Stream(host, (), lambda _, batch: to_float(batch)), -(-len(rows) // batch_size)
