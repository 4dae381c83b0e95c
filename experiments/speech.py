"""Recognises spoken digits: strings of them, by connectionist temporal classification, or one alone.

python -m experiments.speech --flagfile=experiments/flagfiles/speech/strings_tones.flags
python -m experiments.speech --flagfile=experiments/flagfiles/speech/strings_fsdd.flags --recordings=recordings.tar
python -m experiments.speech --task=keyword --recordings=DIR       # of DIGIT_SPEAKER_INDEX.wav
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import speech
from dlfx.data.sequences import Ragged
from dlfx.data.spectrogram_masks import mask_spectrogram
from dlfx.learners.likelihood import likelihood
from dlfx.metrics.edit_counts import edit_counts
from dlfx.models.sequence.speech import STRIDES, SpeechRecognizer, output_frames
from dlfx.ops.ctc import check_feasible, ctc_loss
from dlfx.ops.ctc_decoding import greedy_decode
from dlfx.ops.spectrogram import log_mel, num_frames, standardise
from dlfx.types import Array, Batch, Key, Learner, UserError
from experiments import common, sequences, speech_figures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Speech"):
    flags.DEFINE_enum("task", "strings", ["strings", "keyword"], "digits one after another by CTC, or one alone")
    flags.DEFINE_string("recordings", "", "a directory or tar file of DIGIT_SPEAKER_INDEX.wav; by default made tones")
    flags.DEFINE_integer("rate", 8000, "samples a second of the recordings", lower_bound=1)
    flags.DEFINE_integer("held_out", 2, "recordings of each speaker and digit for validation", lower_bound=0)
    flags.DEFINE_integer("most", 5, "digits of the longest string", lower_bound=1)
    flags.DEFINE_float("pause", 0.1, "the longest silence before a digit, in seconds", lower_bound=0.0)
    flags.DEFINE_float(
        "seconds", 0.0, "the arrays of training; longer strings lose digits; 0: as long as any", lower_bound=0.0
    )
    flags.DEFINE_float("frame_ms", 25.0, "of the spectrogram", lower_bound=1.0)
    flags.DEFINE_float("hop_ms", 10.0, "from one frame to the next", lower_bound=1.0)
    flags.DEFINE_integer("bands", 40, "of the spectrogram", lower_bound=1)
with group("Model"):
    flags.DEFINE_enum("cell", "lstm", ["rnn", "lstm", "gru", "gru_original"], "of the recurrent network")
    flags.DEFINE_integer("width", 96, "of convolutions and of each direction", lower_bound=1)
    flags.DEFINE_integer("layers", 1, "recurrent ones", lower_bound=1)
    flags.DEFINE_enum("subsample", "4", [str(s) for s in STRIDES], "what the convolutions divide the frames by")
    flags.DEFINE_float("dropout", 0.2, "of the model", lower_bound=0.0, upper_bound=0.999)
with group("Augmentation"):
    flags.DEFINE_float("noise", 0.005, "the loudest white noise on an utterance, full scale is 1", lower_bound=0.0)
    flags.DEFINE_integer("masks", 2, "stretches of time, and of frequency, that are hidden", lower_bound=0)
    flags.DEFINE_integer("mask_frames", 10, "the longest stretch of time", lower_bound=0)
    flags.DEFINE_integer("mask_bands", 8, "the widest stretch of frequency", lower_bound=0)
FLAGS.set_default("log_every", 100)


class Task(NamedTuple):
    """What `--task` decides.

    Attributes:
      digits: fewest and most of an utterance.
      loss: (scores, frames, batch) to nats `[B]`.
      score: (scores, frames, batch) to named numbers `[B]`, summed over a split.
      metrics: those sums to what is reported.
    """

    digits: tuple[int, int]
    loss: Callable[[Array, Array, Batch], Array]
    score: Callable[[Array, Array, Batch], dict[str, Array]]
    metrics: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def strings() -> Task:
    """CTC, judged by the edits of what the likeliest path reads as."""

    def loss(scores: Array, frames: Array, batch: Batch) -> Array:
        return ctc_loss(scores, frames, batch["label"], batch["label_lengths"])

    def score(scores: Array, frames: Array, batch: Batch) -> dict[str, Array]:
        found = greedy_decode(scores, frames)
        counts = edit_counts(found.symbols, found.lengths, batch["label"], batch["label_lengths"])
        wrong = sum(counts.values())
        return {**counts, "edits": wrong, "exact": wrong == 0, "labels": batch["label_lengths"]}

    def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rates = {name: sums[name] / sums["labels"] for name in ("substitutions", "deletions", "insertions")}
        return {
            "loss": sums["loss"] / sums["count"],
            "label_error_rate": sums["edits"] / sums["labels"],
            **rates,
            "exact_strings": sums["exact"] / sums["count"],
        }

    return Task((1, FLAGS.most), loss, score, metrics)


def keyword() -> Task:
    """One digit, by a softmax."""

    def loss(scores: Array, frames: Array, batch: Batch) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch["label"][:, 0] - 1)

    def score(scores: Array, frames: Array, batch: Batch) -> dict[str, Array]:
        return {"accuracy": scores.argmax(-1) == batch["label"][:, 0] - 1}

    return Task((1, 1), loss, score, sequences.means("loss", "accuracy"))


def load() -> dict[str, speech.Recordings]:
    """The recordings of training, validation (unless `--held_out=0`) and test."""
    if FLAGS.recordings:
        train, test = speech.read_digits(FLAGS.recordings, FLAGS.rate)
    else:
        train, test = speech.tone_digits(FLAGS.rate)
    takes = np.unique(train.take)
    if len(takes) <= FLAGS.held_out:
        raise UserError(f"--held_out={FLAGS.held_out} leaves nothing of {len(takes)} training recordings of a digit")
    held = np.isin(train.take, takes[: FLAGS.held_out])
    parts = {"train": chosen(train, ~held), "valid": chosen(train, held), "test": test}
    return {name: part for name, part in parts.items() if len(part.digit)}


def chosen(recordings: speech.Recordings, keep: np.ndarray) -> speech.Recordings:
    """Those of the recordings for which `keep [n]` is true."""
    values, offsets = recordings.audio
    rows = [values[offsets[k] : offsets[k + 1]] for k in np.flatnonzero(keep)]
    audio = Ragged(np.concatenate([*rows, values[:0]]), np.cumsum([0, *(len(row) for row in rows)]))
    return recordings._replace(audio=audio, digit=recordings.digit[keep], take=recordings.take[keep])


def framing() -> tuple[int, int]:
    """Samples in a frame, and from one frame to the next."""
    frame, hop = (round(FLAGS.rate * ms / 1000) for ms in (FLAGS.frame_ms, FLAGS.hop_ms))
    if not 1 <= hop <= frame:
        raise UserError(
            f"--hop_ms={FLAGS.hop_ms:g} must be at least a sample and at most --frame_ms={FLAGS.frame_ms:g}"
        )
    return frame, hop


def check_lengths(parts: dict[str, speech.Recordings]) -> None:
    """Refuses recordings so short that a string of them, without pauses, could have too few frames for its label."""
    frame, hop = framing()
    shortest = min(int(part.audio.lengths.min()) for part in parts.values())
    if shortest < frame:
        raise UserError(
            f"a recording of {shortest / FLAGS.rate:.3f} s is shorter than one frame of --frame_ms={FLAGS.frame_ms:g}"
        )
    if FLAGS.task == "keyword":
        return
    for digits in range(1, FLAGS.most + 1):
        frames = output_frames(int(num_frames(digits * shortest, frame, hop)), int(FLAGS.subsample))
        try:
            check_feasible(np.ones((1, digits), int), None, [frames])
        except UserError as error:
            raise UserError(
                f"the shortest recording has {shortest / FLAGS.rate:.3f} s, and {digits} of them may be too short: "
                f"{error}; take a smaller --subsample or --hop_ms"
            ) from None


def make_features(batch: Batch, key: Key | None) -> tuple[Array, Array]:
    """Log-mel features `[B, F, M]` and their lengths `[B]`; augmented, where there is a key."""
    frame, hop = framing()
    audio, lengths = batch["audio"], jnp.asarray(num_frames(batch["audio_lengths"], frame, hop))
    if key is not None and FLAGS.noise:
        loud, values = jax.random.split(jax.random.fold_in(key, 0))
        level = FLAGS.noise * jax.random.uniform(loud, (len(audio), 1), audio.dtype)
        audio += level * jax.random.uniform(values, audio.shape, audio.dtype, -1, 1)  # cheaper than normals
    features = standardise(log_mel(audio, FLAGS.rate, frame, hop, FLAGS.bands), lengths)
    if key is not None and FLAGS.masks:
        masks = {"count": FLAGS.masks, "frames": FLAGS.mask_frames, "bands": FLAGS.mask_bands}
        features = mask_spectrogram(jax.random.fold_in(key, 1), features, lengths, **masks)
    return features, lengths


def make_learner(session: common.Session, model: Any, task: Task) -> Learner:
    """Maximum likelihood of every utterance's label."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, *make_features(batch, None))

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        scores, frames = model.apply(
            variables, *make_features(batch, key), train=True, rngs={"dropout": jax.random.fold_in(key, 2)}
        )
        losses = task.loss(scores, frames, batch)
        return {"loss": losses.sum(), "count": jnp.asarray(losses.size, losses.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def main(_: Any) -> None:
    with common.begin("speech", f"{FLAGS.task}-{FLAGS.cell}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: recordings, model, learner, training, figures."""
    sequences.check_batch(session)
    task = {"strings": strings, "keyword": keyword}[FLAGS.task]()
    parts = load()
    check_lengths(parts)
    model: Any = SpeechRecognizer(
        10 if FLAGS.task == "keyword" else 11,  # digits, or the blank and digits
        FLAGS.width,
        FLAGS.layers,
        FLAGS.cell,
        int(FLAGS.subsample),
        FLAGS.task == "keyword",
        FLAGS.dropout,
        session.dtype,
        session.param_dtype,
    )
    options = {"shortest": task.digits[0], "most": task.digits[1], "pause": FLAGS.pause, **sequences.share()}
    stream = speech.training_stream(parts["train"], FLAGS.batch_size, seconds=FLAGS.seconds, **options)

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        scores, frames = model.apply(state.variables, *make_features(batch, None))
        found = {"loss": task.loss(scores, frames, batch), **task.score(scores, frames, batch)}
        mask = batch["mask"]
        return {"count": mask.sum(), **{name: (value * mask).sum() for name, value in found.items()}}

    rows = -(-32 // session.mesh.size) * session.mesh.size
    streams = {name: speech.evaluation_stream(part, rows, **options) for name, part in parts.items() if name != "train"}
    splits = {name: sequences.Split(*each, sums, task.metrics) for name, each in streams.items()}
    fitted = sequences.fit(session, make_learner(session, model, task), stream, splits, f"{next(iter(splits))}_loss")
    if fitted is None:
        return
    predict = jax.jit(
        lambda batch: (make_features(batch, None), model.apply(fitted.state.variables, *make_features(batch, None)))
    )
    draw = functools.partial(speech_figures.draw, predict=predict, test=streams["test"], task=FLAGS.task)
    sound = hashlib.sha256(b"".join(part.audio.values.tobytes() for part in parts.values())).hexdigest()
    about = {"recordings": parts["train"].name, "recordings_sha256": sound}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
