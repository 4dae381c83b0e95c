"""What the metrics of n-gram overlap share: counts of n-grams, and the check of a corpus."""

from collections import Counter
from collections.abc import Hashable, Sequence

from dlfx.types import UserError

Tokens = Sequence[Hashable]  # the words of a sentence, or their numbers; characters as list(text)


def count_ngrams(tokens: Tokens, order: int) -> Counter[tuple[Hashable, ...]]:
    """How often each run of `order` tokens occurs; empty where there are fewer tokens."""
    return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))


def check_corpus(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Raises `UserError` unless there are hypotheses, each with references, all of them tokens."""
    if len(hypotheses) != len(references):
        raise UserError(
            f"{len(hypotheses)} hypotheses but references for {len(references)}: give each hypothesis a list of them"
        )
    if not hypotheses:
        raise UserError("the corpus is empty: give at least one hypothesis")
    for i, (hypothesis, own) in enumerate(zip(hypotheses, references, strict=True)):
        if isinstance(own, str) or len(own) == 0:
            raise UserError(f"hypothesis {i} needs a list of at least one reference, got {own!r}")
        for tokens in (hypothesis, *own):
            if isinstance(tokens, str):
                raise UserError(f"{tokens!r} is a string, not tokens: give text.split(), or list(text) for characters")
