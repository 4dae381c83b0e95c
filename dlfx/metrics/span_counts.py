"""Spans of tags counted where the tags are, on the device: what `spans.span_scores` divides."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.metrics.spans import tags_to_spans
from dlfx.types import Array


def continues(names: Sequence[str], scheme: str = "BIO") -> np.ndarray:
    """Whether a tag goes on with the span of the tag before it.

    Args:
      names: of the K tags.
      scheme: `BIO` or `BMES`.

    Returns:
      `[K, K]` bool, of the tag before by row, the one after by column. With which tags are `O`, it is all that decides
      which spans a sequence has.
    """
    return np.array([[any(s[1:] == (0, 2) for s in tags_to_spans([a, b], scheme)) for b in names] for a in names])


def span_counts(
    predicted: Array, true: Array, lengths: Array, names: Sequence[str], scheme: str = "BIO"
) -> dict[str, Array]:
    """How many spans were found, of how many.

    Args:
      predicted, true: tags `[B, T]`, indices of `names`. What is behind the lengths does not matter.
      lengths: `[B]`.
      names: of the K tags, such as `["O", "B-PER", "I-PER"]`.
      scheme: `BIO` or `BMES`.

    Returns:
      `correct`, `predicted` and `true`, each `[B]` float32: the spans that are in both, and those in the one and the
      other. `spans.tags_to_spans` says what a span is.
    """
    follows = jnp.asarray(continues(names, scheme))
    inside = jnp.asarray([name != "O" for name in names])
    labels = [name.partition("-")[2] for name in names]
    label = jnp.asarray([labels.index(name) for name in labels])
    size = true.shape[1]
    there = jnp.arange(size) < lengths[:, None]

    def ends(tags: Array) -> tuple[Array, Array]:
        """Where spans begin `[B, T]`, and where the one that is open at a position ends `[B, T]`."""
        within = inside[tags] & there
        joined = follows[tags[:, :-1], tags[:, 1:]] & within[:, :-1] & within[:, 1:]
        begins = within & ~jnp.pad(joined, ((0, 0), (1, 0)))
        stops = within & ~jnp.pad(joined, ((0, 0), (0, 1)))
        return begins, lax.cummin(jnp.where(stops, jnp.arange(size), size), 1, reverse=True)

    predicted, true = (jnp.clip(tags, 0, len(names) - 1) for tags in (predicted, true))  # padding may be anything
    (ours, our_ends), (theirs, their_ends) = ends(predicted), ends(true)
    same = ours & theirs & (our_ends == their_ends) & (label[predicted] == label[true])
    counts = {"correct": same, "predicted": ours, "true": theirs}
    return {name: found.sum(1).astype(jnp.float32) for name, found in counts.items()}


def f1(correct: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """`precision`, `recall` and `f1` of sums of counts; see `spans.SpanScores`."""

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)

    return {
        "precision": share(correct, predicted),
        "recall": share(correct, true),
        "f1": share(2 * correct, predicted + true),
    }
