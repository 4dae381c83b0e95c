"""The user's own texts with labels, tagged sentences and word vectors, from files."""

from pathlib import Path

import numpy as np

from dlfx.data.corpora import existing, read_text
from dlfx.data.labelled_text import Tagged
from dlfx.data.sequence_tasks import PARTS, part_of
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import UserError

VECTORS = 0x8EBC6AF0  # keeps these draws apart from every other use of a seed


def read_labelled(path: str | Path) -> dict[str, list[tuple[str, str]]]:
    """Texts with labels from a UTF-8 file, a line each: label, tab, text.

    Returns:
      Part to (text, label). The part of a text is by a hash of it: no text is in two.

    Raises:
      UserError: if the file cannot be read, or a line has no tab or an empty side; names the line.
    """
    parts: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        label, _, text = (side.strip() for side in line.partition("\t"))
        if not label or not text:
            what = "an empty side" if "\t" in line else "no tab"
            raise UserError(f"line {number} of {path} has {what}: each line must be label TAB text")
        parts[part_of(text)].append((text, label))
    return parts


def read_tagged(path: str | Path) -> dict[str, list[Tagged]]:
    """Sentences with BIO tags from a UTF-8 file in the form of the CoNLL shared tasks.

    A line is a word, and behind space its tag: the first and the last of its columns; what is between is ignored. An
    empty line ends a sentence. An `I` that goes on with nothing becomes a `B`: so the files of 2003 are read, too,
    which write `B` only between two entities of one kind.

    Returns:
      Part to (words, tags). The part of a sentence is by a hash of its words: no sentence is in two.

    Raises:
      UserError: if the file cannot be read, or a line is not a word and a tag; names the line.
    """
    parts: dict[str, list[Tagged]] = {part: [] for part in PARTS}
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], 1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            letter, _, kind = columns[-1].partition("-")
            if len(columns) < 2 or (columns[-1] != "O" and (letter not in ("B", "I") or not kind)):
                what = f"the tag {columns[-1]!r}" if len(columns) > 1 else "one column"
                raise UserError(f"line {number} of {path} has {what}: a line is a word and O, B-KIND or I-KIND")
            goes_on = bool(tags) and tags[-1] in (f"B-{kind}", f"I-{kind}")
            words.append(columns[0])
            tags.append(f"B-{kind}" if letter == "I" and not goes_on else columns[-1])
        elif words:
            parts[part_of(" ".join(words))].append((words, tags))
            words, tags = [], []
    return parts


def read_vectors(path: str | Path, vocabulary: Vocabulary) -> tuple[np.ndarray, int]:
    """The vectors of a vocabulary's words from a file in the text format of word2vec, or of GloVe.

    A line is a word and its numbers; the first may tell how many words and numbers there are. Words that the file lacks
    get numbers drawn from U(-a, a), with a such that their variance is that of the vectors found; always the same ones.

    Returns:
      The vectors `[V, D]` float32, and how many of them the file has.

    Raises:
      UserError: if there is no such file, a line is malformed or of another length, or no word is found.
    """
    numbers = {symbol: i for i, symbol in enumerate(vocabulary.symbols)}
    found: dict[int, np.ndarray] = {}
    features = 0
    try:
        with existing(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                columns = line.rstrip().split(" ")
                if number == 1 and len(columns) == 2:  # how many words, and how many numbers each
                    continue
                features = features or len(columns) - 1
                if len(columns) - 1 != features or not features:
                    counts = f"{len(columns) - 1} numbers, and those before it {features}"
                    raise UserError(f"line {number} of {path} has {counts}: a line is a word and its vector")
                if columns[0] in numbers:
                    found[numbers[columns[0]]] = np.array(columns[1:], np.float32)
    except UnicodeDecodeError:
        raise UserError(f"word vectors {path} are not UTF-8; the text format of word2vec is wanted") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"line {number} of {path} has something that is no number: {error}") from None
    if not found:
        raise UserError(f"word vectors {path} have none of the {vocabulary.size} words of this vocabulary")
    known = np.stack(list(found.values()))
    rng = np.random.Generator(np.random.Philox(key=[0, VECTORS]))
    a = float(np.sqrt(3 * known.var()))
    vectors = rng.uniform(-a, a, (vocabulary.size, features)).astype(np.float32)
    vectors[list(found)] = known
    return vectors, len(found)
