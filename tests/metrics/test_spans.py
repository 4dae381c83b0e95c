import itertools

import numpy as np
import pytest

from dlfx.metrics.spans import Span, SpanScores, span_scores, spans_to_tags, tags_to_spans
from dlfx.types import UserError


def conlleval_spans(tags):
    """The spans by the two rules of conlleval for IOB and IOBES: its I is M in BMES, and S both begins and ends."""
    pairs = [tuple((tag + "-").split("-")[:2]) for tag in ["O", *tags, "O"]]
    pairs = [({"M": "I"}.get(letter, letter), label) for letter, label in pairs]
    spans, start = [], None
    for i in range(1, len(pairs)):
        (before, old), (now, new) = pairs[i - 1], pairs[i]
        differs = old != new
        ends = before != "O" and (before in "ES" or now in "BSO" or differs)
        begins = now != "O" and (now in "BS" or before in "ESO" or differs)
        if ends:
            spans.append(Span(old, start, i - 1))
        if begins:
            start = i - 1
    return spans


@pytest.mark.parametrize(("scheme", "letters", "length"), [("BIO", "BI", 6), ("BMES", "BMES", 4)])
def test_spans_of_every_sequence_of_tags(scheme, letters, length):
    alphabet = ["O", *(f"{letter}-{label}" for letter in letters for label in "XY")]
    for tags in itertools.product(alphabet, repeat=length):
        assert tags_to_spans(tags, scheme) == conlleval_spans(tags)


def test_spans_by_hand():
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-PER"]
    assert tags_to_spans(tags) == [Span("PER", 0, 2), Span("LOC", 3, 4), Span("LOC", 4, 5), Span("PER", 5, 6)]
    assert tags_to_spans(["I-X", "I-X", "I-Y"]) == [Span("X", 0, 2), Span("Y", 2, 3)]
    assert tags_to_spans(list("BESBME"), "BMES") == [Span("", 0, 2), Span("", 2, 3), Span("", 3, 6)]
    assert tags_to_spans(["B-A-B", "I-A-B"]) == [Span("A-B", 0, 2)]
    assert tags_to_spans([]) == []


@pytest.mark.parametrize("scheme", ["BIO", "BMES"])
def test_tags_are_the_inverse(scheme):
    rng = np.random.default_rng(0)
    for _ in range(50):
        edges = np.sort(rng.choice(20, 8, replace=False)).tolist()
        spans = [Span(str(rng.choice(["PER", "LOC", ""])), a, b) for a, b in itertools.pairwise(edges)]
        spans = [span for span in spans if rng.random() < 0.7]
        tags = spans_to_tags(spans, 20, scheme)
        assert len(tags) == 20
        assert tags_to_spans(tags, scheme) == spans
    assert spans_to_tags([Span("A", 1, 4)], 5, "BMES") == ["O", "B-A", "M-A", "E-A", "O"]


def test_scores_by_hand():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "B-ORG"]]
    # Of 4 predicted and 3 true spans only LOC of the first sentence is right: the others differ in end, label, place.
    assert span_scores(predicted, true) == SpanScores(1 / 4, 1 / 3, 2 / 7, 1, 4, 3)
    assert span_scores(true, true).f1 == 1
    # 5 of 6 tags are right, but no span: accuracy of tags is something else.
    assert span_scores([["B", "I", "I", "I", "I", "O"]], [["B", "I", "I", "I", "I", "I"]]).f1 == 0
    # A word at the end of one sentence does not go on in the next.
    assert span_scores([["B-X"], ["I-X"]], [["B-X"], ["B-X"]]).correct == 2


def test_segmentation_of_words():
    # 他|来到|北京 against 他来|到|北京: one of three words
    assert span_scores([list("SBEBE")], [list("BESBE")], "BMES") == SpanScores(1 / 3, 1 / 3, 1 / 3, 1, 3, 3)


def test_scores_of_nothing():
    assert span_scores([["O"]], [["O"]]) == SpanScores(0, 0, 0, 0, 0, 0)
    assert span_scores([], []) == SpanScores(0, 0, 0, 0, 0, 0)
    assert span_scores([["O"]], [["B-X"]]).precision == 0


def test_bad_input():
    with pytest.raises(UserError, match=r"unknown tag 'M-X' at position 1 \(a tag of BIO begins with one of O, B, I\)"):
        tags_to_spans(["O", "M-X"])
    with pytest.raises(UserError, match="unknown tag ''"):
        tags_to_spans([""], "BMES")
    with pytest.raises(UserError, match="unknown scheme of tags 'BIOS'; did you mean BIO"):
        tags_to_spans([], "BIOS")
    with pytest.raises(UserError, match="overlaps"):
        spans_to_tags([Span("A", 0, 2), Span("B", 1, 3)], 3)
    for start, end in ((0, 0), (-1, 1), (2, 4)):
        with pytest.raises(UserError, match="no span of a sentence of 3 tokens"):
            spans_to_tags([Span("A", start, end)], 3)
    with pytest.raises(UserError, match="sentence 0 has 2 tokens, but 1 predicted tags"):
        span_scores([["O"]], [["O", "O"]])
    with pytest.raises(UserError, match="1 sentences, but true ones for 0"):
        span_scores([["O"]], [])
