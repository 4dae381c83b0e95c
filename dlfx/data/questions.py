"""Questions whose answers are spans of a passage: gaps in docstrings of Python's library, or a file of the user's."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlfx.data import corpora
from dlfx.data.corpora import hashed
from dlfx.data.sequence_tasks import PARTS, part_of
from dlfx.data.vocabulary import WORD, split_words
from dlfx.types import UserError

QUESTIONS = 0xE7037ED1  # keeps these draws apart from every other use of a seed
AROUND = 3  # words on each side of a gap
PASSAGE = 36  # words in a passage of a docstring at most, unless a sentence has more
GAP = "?"


class Question(NamedTuple):
    """A question on a passage, in words.

    Attributes:
      question: its words.
      passage: its words.
      first: the first word of the answer.
      last: the last one.
    """

    question: list[str]
    passage: list[str]
    first: int
    last: int

    @property
    def answer(self) -> str:
        """The words of the answer."""
        return " ".join(self.passage[self.first : self.last + 1])


def gaps(part: str, n: int) -> list[Question]:
    """At most n passages of docstrings, each with the surroundings of one or two of its words; always the same ones.

    The question is what stands around the answer, `the three words ? and three words`: whoever finds them in the
    passage has the answer. The answer begins and ends with a word of four letters at least. Parts are those of
    `corpora.python_prose`: no module is in two.

    Args:
      part: `train`, `valid` or `test`.
      n: how many.
    """
    documents = dict(zip(PARTS, corpora.python_prose()[1:4], strict=True))[part]
    passages = sorted(
        {tuple(p) for document in documents for p in _passages(document)}, key=lambda p: hashed(" ".join(p))
    )
    rng = np.random.Generator(np.random.Philox(key=[PARTS.index(part), QUESTIONS]))
    found: list[Question] = []
    for words in passages:
        size = int(rng.integers(1, 3))
        counts = Counter(words[i : i + size] for i in range(len(words)))
        places = [
            i
            for i in range(AROUND, len(words) - size - AROUND + 1)
            if all(len(word) >= 4 and word.isalpha() for word in (words[i], words[i + size - 1]))
            and counts[words[i : i + size]] == 1
        ]
        if places and len(found) < n:
            i = places[int(rng.integers(len(places)))]
            question = [*words[i - AROUND : i], GAP, *words[i + size : i + size + AROUND]]
            found.append(Question(question, list(words), i, i + size - 1))
    return found


def _passages(document: str) -> list[list[str]]:
    """The document in spans of sentences."""
    spans: list[list[str]] = [[]]
    for sentence in corpora.sentences(document):
        words = split_words(sentence)
        if len(spans[-1]) + len(words) > PASSAGE:
            spans.append([])
        spans[-1] += words
    return spans


def read_questions(path: str | Path) -> dict[str, list[Question]]:
    """Questions from a file in the format of SQuAD; of several answers to a question the first, of none none.

    Returns:
      Part to questions. The part is by a hash of the passage: no passage is in two.

    Raises:
      UserError: if the file cannot be read, is of another format, or an answer does not stand where it says.
    """
    text = corpora.read_text(path)
    parts: dict[str, list[Question]] = {part: [] for part in PARTS}
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                words = [(match.group(), *match.span()) for match in WORD.finditer(context)]
                for asked in paragraph["qas"]:
                    for answer in asked["answers"][:1]:
                        start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                        inside = [k for k, (_, a, b) in enumerate(words) if a < end and b > start]
                        if context[start:end] != answer["text"] or not inside:
                            what = f"{answer['text']!r} at {start} of the passage {context[:40]!r}..."
                            raise UserError(f"{path} has an answer {what}, which does not stand there")
                        passage = [word for word, _, _ in words]
                        question = Question(split_words(asked["question"]), passage, inside[0], inside[-1])
                        parts[part_of(context)].append(question)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not in the format of SQuAD ({type(error).__name__}: {error})") from error
    return parts
