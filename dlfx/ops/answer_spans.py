"""The most probable span of a passage, from logits of where it starts and where it ends."""

import jax.numpy as jnp

from dlfx.types import Array


def best_span(start: Array, end: Array, allowed: Array, longest: int) -> tuple[Array, Array]:
    """`argmax S_i + E_j` over `i <= j < i + longest` with i and j allowed; the first of several.

    Args:
      start: `[..., T]` logits S of the first token.
      end: `[..., T]` logits E of the last token.
      allowed: `[..., T]` bool, the tokens of the passage; one at least.
      longest: tokens in a span at most.

    Returns:
      The first and the last token, `[...]` int32 each.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 4.2. The bound on the length is that of the authors' program.
    """
    size = start.shape[-1]
    i, j = jnp.arange(size)[:, None], jnp.arange(size)
    there = (i <= j) & (j < i + longest) & allowed[..., :, None] & allowed[..., None, :]
    scores = jnp.where(there, start[..., :, None] + end[..., None, :], -jnp.inf)
    best = scores.reshape(*scores.shape[:-2], -1).argmax(-1).astype(jnp.int32)
    return best // size, best % size
