"""Levenshtein distance, and the error rates of recognised words, characters and labels."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from dlfx.types import UserError


class Edits(NamedTuple):
    """What turns references into hypotheses. Edits of parts add up, number by number, to those of the whole.

    Attributes:
      substitutions: reference tokens that became another one.
      deletions: reference tokens that are missing in the hypothesis.
      insertions: hypothesis tokens that no reference token stands for.
      reference_length: number of reference tokens.
    """

    substitutions: int
    deletions: int
    insertions: int
    reference_length: int

    @property
    def distance(self) -> int:
        """`S + D + I`."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """`(S + D + I) / N`, N the reference length. More than 1 where there are many insertions."""
        if self.reference_length == 0:
            raise UserError("an error rate needs at least one reference token: all references are empty")
        return self.distance / self.reference_length


def edits(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> Edits:
    """The fewest edits between two sequences; of several such alignments, one with the fewest substitutions.

    `d[i, j] = min(d[i-1, j-1] + [h_i != r_j], d[i-1, j] + 1, d[i, j-1] + 1)`

    Args:
      hypothesis, reference: strings (their characters count) or sequences of words or labels.

    Source: Levenshtein 1966; Wagner and Fischer 1974, The String-to-String Correction Problem, algorithm X.
    """
    numbers: dict[Hashable, int] = {}
    hyp = np.array([numbers.setdefault(token, len(numbers)) for token in hypothesis], np.int64)
    ref = np.array([numbers.setdefault(token, len(numbers)) for token in reference], np.int64)
    # Every edit costs `unit`, a substitution 1 more: the least cost holds the distance and the substitutions, and
    # these hold the rest, as insertions - deletions = length of the hypothesis - length of the reference.
    unit = min(len(hyp), len(ref)) + 1
    ramp = np.arange(len(ref) + 1) * unit
    row = ramp
    for i, token in enumerate(hyp, start=1):
        new = row + unit  # insertions
        new[0] = i * unit
        new[1:] = np.minimum(new[1:], row[:-1] + (unit + 1) * (ref != token))
        row = np.minimum.accumulate(new - ramp) + ramp  # any number of deletions, d[i, k] + (j - k), at once
    distance, substitutions = divmod(int(row[-1]), unit)
    longer = len(hyp) - len(ref)
    deletions = (distance - substitutions - longer) // 2
    return Edits(substitutions, deletions, deletions + longer, len(ref))


def corpus_edits(hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> Edits:
    """The edits of every pair, summed: `.rate` is the label error rate, total edits over total reference length.

    Source: Graves et al. 2006, Connectionist Temporal Classification, equation 1 (with Z of the test set).
    """
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} hypotheses but {len(references)} references: give one of each a pair")
    pairs = [edits(hyp, ref) for hyp, ref in zip(hypotheses, references, strict=True)]
    return Edits(*(sum(part) for part in zip(*pairs, strict=True))) if pairs else Edits(0, 0, 0, 0)


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Word edits over reference words of a corpus of strings. Words are what stands between white space."""
    return corpus_edits([h.split() for h in hypotheses], [r.split() for r in references]).rate


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Character edits over reference characters of a corpus of strings. A space is a character as any other."""
    return corpus_edits(hypotheses, references).rate
