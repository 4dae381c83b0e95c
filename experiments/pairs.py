"""The pairs of an experiment, what is given and what it should become: generated tasks, or a file of one's own."""

from pathlib import Path
from typing import NamedTuple

from absl import flags

from dlfx.data import sequence_tasks
from dlfx.data import sequences as padded_sequences
from dlfx.data.sequence_tasks import SOURCE_SPECIAL, TARGET_SPECIAL, Pair, Task
from dlfx.data.vocabulary import Vocabulary, of_symbols, split_words, words
from dlfx.types import Stream, UserError
from experiments import sequences
from experiments.common import FLAGS, Session, group

KINDS = ["characters", "words"]

with group("Pairs"):
    flags.DEFINE_string("task", "addition", f"one of {', '.join(sequence_tasks.TASKS)}")
    flags.DEFINE_integer(
        "size", 0, "digits of addition (0: 3) and of numbers (0: 6), or the longest text of reversal (0: 10)", 0
    )
    flags.DEFINE_integer("valid_pairs", 1000, "of a task, that are not trained on", lower_bound=1)
    flags.DEFINE_integer("test_pairs", 10000, "of a task, that are not trained on", lower_bound=1)
    flags.DEFINE_string("pairs_file", "", "UTF-8 pairs of your own instead, a line each: source TAB target")
    flags.DEFINE_enum("source_tokens", "words", KINDS, "what the sources of --pairs_file are cut into")
    flags.DEFINE_enum("target_tokens", "words", KINDS, "what its targets are cut into")
    flags.DEFINE_integer("min_count", 2, "tokens that its training pairs have less often are <unk>", lower_bound=1)
    flags.DEFINE_integer("longest", 0, "leave out its pairs with more tokens on a side; 0: none", lower_bound=0)
    flags.DEFINE_bool("turn_source", False, "the model reads sources from behind")
    flags.DEFINE_bool("turn_target", False, "the model writes targets from behind")


class Pairs(NamedTuple):
    """Pairs to train and to evaluate on.

    Attributes:
      name: what to call them.
      source: vocabulary of what is given.
      target: vocabulary of the answers, with `<bos>` and `<eos>`.
      lengths: what `source` and `target` are padded to.
      stream: of training batches, see `sequence_tasks.training_stream`.
      splits: split to its pairs as they are written, before any turning; `valid` and `test`, those that there are.
    """

    name: str
    source: Vocabulary
    target: Vocabulary
    lengths: dict[str, int]
    stream: Stream
    splits: dict[str, list[Pair]]

    def fields(self, pairs: list[Pair]) -> padded_sequences.Fields:
        """Pairs as the model sees them."""
        return sequence_tasks.fields([_turned(pair) for pair in pairs], self.source, self.target)


def label() -> str:
    """The pairs in the name of a directory."""
    return Path(FLAGS.pairs_file).stem if FLAGS.pairs_file else FLAGS.task


def tokens_of(text: str, kind: str) -> list[str]:
    """A text in its characters or words."""
    return split_words(text) if kind == "words" else list(text)


def load(session: Session) -> Pairs:
    """The pairs of the flags.

    Raises:
      UserError: for an unknown task, a size that it has not, or see `sequence_tasks.read_pairs`.
    """
    with session.clock.phase("data"):
        return _from_file() if FLAGS.pairs_file else _from_task(_task())


def _turned(pair: Pair) -> Pair:
    source, target = pair
    if FLAGS.turn_source:
        source = _backwards(source, FLAGS.source_tokens if FLAGS.pairs_file else "characters")
    if FLAGS.turn_target:
        target = _backwards(target, FLAGS.target_tokens if FLAGS.pairs_file else "characters")
    return source, target


def _backwards(text: str, kind: str) -> str:
    return ("" if kind == "characters" else " ").join(tokens_of(text, kind)[::-1])


def _task() -> Task:
    if not FLAGS.size:
        return sequence_tasks.load(FLAGS.task)
    if FLAGS.task == "reversal":
        return sequence_tasks.reversal(longest=FLAGS.size)
    if FLAGS.task not in ("addition", "numbers_to_words", "words_to_numbers"):
        sequence_tasks.load(FLAGS.task)  # may be unknown
        raise UserError(f"--task={FLAGS.task} has no --size")
    if FLAGS.size > 9:
        raise UserError(f"--size={FLAGS.size} of --task={FLAGS.task} must be at most 9 digits")
    if FLAGS.task == "addition":
        return sequence_tasks.addition(FLAGS.size)
    return sequence_tasks.numbers(FLAGS.size, FLAGS.task == "numbers_to_words")


def _from_task(task: Task) -> Pairs:
    splits = {
        "valid": sequence_tasks.fixed(task, "valid", FLAGS.valid_pairs),
        "test": sequence_tasks.fixed(task, "test", FLAGS.test_pairs),
    }
    # What the model sees is turned; which part a pair belongs to is for the pair as it is written, turned once more.
    seen = task._replace(
        draw=lambda rng, n: [_turned(pair) for pair in task.draw(rng, n)], key=lambda pair: task.key(_turned(pair))
    )
    stream = sequence_tasks.training_stream(seen, FLAGS.batch_size, **sequences.share())
    return Pairs(task.name, task.source, task.target, sequence_tasks.lengths(task), stream, splits)


def _from_file() -> Pairs:
    kinds = FLAGS.source_tokens, FLAGS.target_tokens
    parts = sequence_tasks.read_pairs(FLAGS.pairs_file)
    if FLAGS.longest:
        parts = {
            part: [
                p for p in pairs if all(len(tokens_of(*side)) <= FLAGS.longest for side in zip(p, kinds, strict=True))
            ]
            for part, pairs in parts.items()
        }
    splits = {part: pairs for part, pairs in parts.items() if part != "train" and pairs}
    if not splits or not parts["train"]:
        raise UserError(
            f"{FLAGS.pairs_file} has {len(parts['train'])} pairs to train on and {len(parts['valid'])} and "
            f"{len(parts['test'])} to evaluate on (--longest={FLAGS.longest}); it needs more of them"
        )
    source, target = (
        _vocabulary([pair[side] for pair in parts["train"]], kinds[side], special)
        for side, special in enumerate((SOURCE_SPECIAL, TARGET_SPECIAL))
    )
    pairs = Pairs(Path(FLAGS.pairs_file).name, source, target, {}, Stream(lambda seed, i: {}), splits)
    train = pairs.fields(parts["train"])
    lengths = padded_sequences.longest(train, *(pairs.fields(split) for split in splits.values()))
    stream = padded_sequences.training_stream(train, FLAGS.batch_size, lengths, **sequences.share())
    return pairs._replace(lengths=lengths, stream=stream)


def _vocabulary(texts: list[str], kind: str, special: tuple[str, ...]) -> Vocabulary:
    kept = words([tokens_of(text, kind) for text in texts], ("<unk>",), min_count=FLAGS.min_count).symbols[1:]
    return of_symbols(kind, kept, (*special, "<unk>"))
