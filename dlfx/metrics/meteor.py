"""METEOR: precision and recall of words aligned by form or stem, less the more the alignment is torn."""

from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

import numpy as np

from dlfx.metrics.ngrams import Tokens, check_corpus

BEAM = 40  # unfinished alignments that are kept, as many as in METEOR 1.5
Beam = dict[tuple[frozenset[int], int], tuple[tuple[float, int, int], tuple]]


class Alignment(NamedTuple):
    """One word to one word: (index in the hypothesis, in the reference, whether they are equal), and the chunks."""

    pairs: tuple[tuple[int, int, bool], ...]
    chunks: int


def align(hypothesis: Tokens, reference: Tokens, stem: Callable[[str], str] | None = None) -> Alignment:
    """The alignment of most matches (of stems only: half a match), then fewest chunks, then least displacement.

    A chunk is a run of words that follow each other in both sentences. The search goes from left to right and keeps
    the best `BEAM` partial alignments: exact but for sentences that repeat many words many times.
    """
    stems = [[word if stem is None else stem(word) for word in words] for words in (hypothesis, reference)]  # type: ignore[arg-type]
    options = [
        [(j, hypothesis[i] == reference[j]) for j in range(len(reference)) if stems[0][i] == stems[1][j]]
        for i in range(len(hypothesis))
    ]
    contested: list[set[int]] = [set()]  # reference words that may still be taken, from the last word backwards
    for option in reversed(options):
        contested.append(contested[-1] | {j for j, _ in option})
    # Partial alignments that leave the same choices are one: (reference words taken, match of the last word).
    # Each has its value (-matches, chunks, displacement) and its pairs.
    beam: Beam = {(frozenset(), -2): ((0.0, 0, 0), ())}
    for i, option in enumerate(options):
        ahead = contested[len(options) - 1 - i]
        new: Beam = {}
        for (taken, last), ((matches, chunks, displacement), pairs) in beam.items():
            candidates = [((taken & ahead, -2), ((matches, chunks, displacement), pairs))]
            for j, exact in option:
                if j not in taken:
                    value = (matches - (1 if exact else 0.5), chunks + (j != last + 1), displacement + abs(i - j))
                    candidates.append((((taken | {j}) & ahead, j), (value, (*pairs, (i, j, exact)))))
            for state, entry in candidates:
                if state not in new or entry[0] < new[state][0]:
                    new[state] = entry
        beam = dict(sorted(new.items(), key=lambda item: item[1][0])[:BEAM])
    (_, chunks, _), pairs = min(beam.values(), key=lambda entry: entry[0])
    return Alignment(pairs, chunks)


def corpus_meteor(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    stem: Callable[[str], str] | None = None,
    function_words: Container = frozenset(),
    alpha: float = 0.85,
    beta: float = 0.2,
    gamma: float = 0.6,
    delta: float = 0.75,
    stem_weight: float = 0.6,
) -> float:
    """METEOR of a corpus, or of one sentence: the sums over sentences, each with its best reference, scored as one.

    `F = P R / (alpha P + (1 - alpha) R)`, `METEOR = F (1 - gamma (chunks / matches)^beta)`

    P and R are matched over all words of hypothesis and reference, each word weighted by delta (content) or 1 - delta
    (function word) and each match by 1 or `stem_weight`. A hypothesis equal to its reference has no penalty.

    The defaults are those of METEOR 1.5 for English. That program also matches synonyms (WordNet) and paraphrases by
    tables of its own, and has its own list of function words: figures it gave are reached only without those. The
    first METEOR is `alpha=0.9, beta=3, gamma=0.5, delta=0.5, stem_weight=1`: `F = 10 P R / (R + 9 P)`; there equal
    sentences of m words are penalised too, by `1 / (2 m^3)`.

    Args:
      hypotheses: N sentences as tokens.
      references: for each hypothesis one or more references.
      stem: a word's stem, such as `snowballstemmer.stemmer("english").stemWord`; None: only equal words match.
      function_words: the words that count `1 - delta`.
      alpha, beta, gamma, delta, stem_weight: see above.

    Source: Denkowski and Lavie 2014, Meteor Universal, section 3; Banerjee and Lavie 2005, METEOR, section 2.2.
    """
    check_corpus(hypotheses, references)

    def weigh(word: object) -> float:
        return 1 - delta if word in function_words else delta

    def counts(hypothesis: Tokens, reference: Tokens) -> np.ndarray:
        pairs, chunks = align(hypothesis, reference, stem)
        weights = [1.0 if exact else stem_weight for _, _, exact in pairs]
        return np.array(
            [
                sum(w * weigh(hypothesis[i]) for w, (i, _, _) in zip(weights, pairs, strict=True)),
                sum(w * weigh(reference[j]) for w, (_, j, _) in zip(weights, pairs, strict=True)),
                sum(map(weigh, hypothesis)),
                sum(map(weigh, reference)),
                len(pairs),
                chunks,
                len(pairs) == len(hypothesis) == len(reference) and chunks == 1,
            ]
        )

    def score(sums: np.ndarray, sentences: int) -> float:
        matched_hypothesis, matched_reference, hypothesis, reference, matches, chunks, whole = sums.tolist()
        if not matched_hypothesis or not matched_reference:
            return 0.0
        precision, recall = matched_hypothesis / hypothesis, matched_reference / reference
        f = precision * recall / (alpha * precision + (1 - alpha) * recall)
        return f * (1 - (0 if whole == sentences == 1 else gamma * (chunks / matches) ** beta))

    total = np.zeros(7)
    for hypothesis, own in zip(hypotheses, references, strict=True):
        total += max((counts(hypothesis, reference) for reference in own), key=lambda sums: score(sums, 1))
    return score(total, len(hypotheses))
