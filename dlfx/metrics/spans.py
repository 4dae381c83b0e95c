"""Spans in sequences of tags, and how many of them were found: named entities, chunks, words."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlfx.types import UserError, unknown

# What begins a span, what goes on with one, and what ends one with the token itself.
SCHEMES = {"BIO": ("B", "I", ""), "BMES": ("BS", "ME", "ES")}


class Span(NamedTuple):
    """Tokens `start ... end - 1`, all of one label."""

    label: str
    start: int
    end: int


def tags_to_spans(tags: Sequence[str], scheme: str = "BIO") -> list[Span]:
    """The spans of one sentence, in order.

    A sequence that is no proper coding has spans too, by the rules of the CoNLL shared tasks: what should go on with a
    span but has none of its label before it begins one; a span that nothing ends goes on as far as its label does.

    Args:
      tags: `O`, or a letter and a label such as `B-PER`; a letter alone has the label `""`, as for the words of an
        unsegmented text.
      scheme: `BIO` (begin, inside, outside) or `BMES` (begin, middle, end, single; and `O`).

    Source: the script conlleval of the CoNLL-2000 shared task.
    """
    begins, goes_on, ends = _letters(scheme)
    spans = []
    start, current = 0, None  # the label of the open span
    for i, tag in enumerate(tags):
        letter, _, label = tag.partition("-")
        if letter != "O" and letter not in set(begins + goes_on):
            allowed = ", ".join(["O", *dict.fromkeys(begins + goes_on)])
            raise UserError(f"unknown tag {tag!r} at position {i} (a tag of {scheme} begins with one of {allowed})")
        follows = letter != "O" and letter in goes_on and label == current
        if current is not None and not follows:
            spans.append(Span(current, start, i))
            current = None
        if letter != "O":
            if current is None:
                start, current = i, label
            if letter in ends:
                spans.append(Span(label, start, i + 1))
                current = None
    if current is not None:
        spans.append(Span(current, start, len(tags)))
    return spans


def spans_to_tags(spans: Iterable[Span], length: int, scheme: str = "BIO") -> list[str]:
    """The tags of a sentence of `length` tokens that has these spans; the inverse of `tags_to_spans`."""
    _letters(scheme)
    tags = ["O"] * length
    for span in spans:
        label, start, end = span
        if not 0 <= start < end <= length:
            raise UserError(f"{span} is no span of a sentence of {length} tokens: 0 <= start < end <= {length}")
        if any(tag != "O" for tag in tags[start:end]):
            raise UserError(f"{span} overlaps another span: tags can code only spans apart")
        letters = ["B", *"I" * (end - start - 1)]
        if scheme == "BMES":
            letters = ["S"] if end - start == 1 else ["B", *"M" * (end - start - 2), "E"]
        tags[start:end] = [f"{letter}-{label}" if label else letter for letter in letters]
    return tags


class SpanScores(NamedTuple):
    """`P = correct / predicted`, `R = correct / true`, `F1 = 2 P R / (P + R)`; a fraction of nothing is 0."""

    precision: float
    recall: float
    f1: float
    correct: int
    predicted: int
    true: int


def span_scores(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]], scheme: str = "BIO") -> SpanScores:
    """Precision, recall and F1 of the spans of a corpus; a span is correct if label, start and end are.

    Counted over all sentences before anything is divided (micro average).

    Args:
      predicted, true: for each sentence its tags.
      scheme: `BIO` or `BMES`.

    Source: Tjong Kim Sang and Buchholz 2000, Introduction to the CoNLL-2000 Shared Task: Chunking, section 4.
    """
    if len(predicted) != len(true):
        raise UserError(f"tags predicted for {len(predicted)} sentences, but true ones for {len(true)}")
    correct = guesses = truths = 0
    for i, (ours, theirs) in enumerate(zip(predicted, true, strict=True)):
        if len(ours) != len(theirs):
            raise UserError(f"sentence {i} has {len(theirs)} tokens, but {len(ours)} predicted tags")
        found, right = tags_to_spans(ours, scheme), tags_to_spans(theirs, scheme)
        correct += len(set(found) & set(right))
        guesses += len(found)
        truths += len(right)
    precision = correct / guesses if guesses else 0.0
    recall = correct / truths if truths else 0.0
    f1 = 2 * correct / (guesses + truths) if correct else 0.0
    return SpanScores(precision, recall, f1, correct, guesses, truths)


def _letters(scheme: str) -> tuple[str, str, str]:
    if scheme not in SCHEMES:
        raise unknown("scheme of tags", scheme, SCHEMES)
    return SCHEMES[scheme]
