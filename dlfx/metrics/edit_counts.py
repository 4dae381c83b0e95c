"""Levenshtein edits counted on the device: the sums of what `edit_distance.edits` gives on the host."""

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array


def edit_counts(
    hypotheses: Array, hypothesis_lengths: Array, references: Array, reference_lengths: Array
) -> dict[str, Array]:
    """The fewest edits between sequences; of several such alignments, one with the fewest substitutions.

    `d[i, j] = min(d[i-1, j-1] + [r_i != h_j], d[i-1, j] + 1, d[i, j-1] + 1)`

    Args:
      hypotheses: symbols `[B, M]`. What is behind the lengths does not matter, here and below.
      hypothesis_lengths: `[B]`.
      references: `[B, L]`. The loop runs over these.
      reference_lengths: `[B]`.

    Returns:
      `substitutions`, `deletions` (of reference symbols) and `insertions`, each `[B]` int32.

    Source: see `edit_distance.edits`.
    """
    # As there: an edit costs `unit`, a substitution 1 more, so the least cost holds the distance and the substitutions.
    unit = min(hypotheses.shape[1], references.shape[1]) + 1
    ramp = jnp.arange(hypotheses.shape[1] + 1) * unit

    def one(hypothesis: Array, hypothesis_length: Array, reference: Array, reference_length: Array) -> dict[str, Array]:
        def step(row: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
            symbol, inside = given
            replaced = row[:-1] + (unit + 1) * (hypothesis != symbol)
            new = jnp.concatenate([row[:1] + unit, jnp.minimum(row[1:] + unit, replaced)])
            new = lax.cummin(new - ramp) + ramp  # any number of insertions at once
            return jnp.where(inside, new, row), None

        row, _ = lax.scan(step, ramp, (reference, jnp.arange(len(reference)) < reference_length))
        distance, substitutions = jnp.divmod(row[hypothesis_length], unit)
        longer = hypothesis_length - reference_length
        deletions = (distance - substitutions - longer) // 2
        counts = {"substitutions": substitutions, "deletions": deletions, "insertions": deletions + longer}
        return {name: count.astype(jnp.int32) for name, count in counts.items()}

    return jax.vmap(one)(hypotheses, hypothesis_lengths, references, reference_lengths)
