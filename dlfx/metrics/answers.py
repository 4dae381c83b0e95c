"""How well an answer that is a span of a passage was found, by its place and by its words."""

import re
import string
from collections import Counter

import jax.numpy as jnp

from dlfx.types import Array


def span_match(first: Array, last: Array, true_first: Array, true_last: Array) -> tuple[Array, Array]:
    """Whether two spans are the same, and the F1 of their tokens by place: `2 common / (predicted + true)`.

    Args:
      first, last: `[B]` tokens of the predicted span, the last one in it.
      true_first, true_last: `[B]` those of the true one.

    Returns:
      `exact [B]`, 0 or 1, and `f1 [B]`.
    """
    exact = (first == true_first) & (last == true_last)
    common = jnp.maximum(jnp.minimum(last, true_last) - jnp.maximum(first, true_first) + 1, 0)
    both = last - first + 1 + true_last - true_first + 1
    return exact.astype(jnp.float32), 2 * common / both.astype(jnp.float32)


def normalized(answer: str) -> str:
    """An answer in lower case without punctuation, English articles and repeated space."""
    kept = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def answer_match(predicted: str, true: str) -> tuple[float, float]:
    """Exact match, 0 or 1, and F1 of the bags of words of two normalized answers.

    Where one of them has no word left, F1 is 1 if the other has none either, and else 0.

    Source: Rajpurkar et al. 2016, SQuAD (arXiv:1606.05250), section 6.1; for answers without words, SQuAD 2.0
      (arXiv:1806.03822).
    """
    ours, theirs = normalized(predicted), normalized(true)
    exact = float(ours == theirs)
    a, b = Counter(ours.split()), Counter(theirs.split())
    if not a or not b:
        return exact, exact
    return exact, 2 * (a & b).total() / (a.total() + b.total())
