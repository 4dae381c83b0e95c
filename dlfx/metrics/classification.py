"""Loss, accuracy and confusion of a classifier, as sums over examples."""

import jax
import jax.numpy as jnp
import optax

from dlfx.types import Array


def sums(logits: Array, labels: Array, mask: Array) -> dict[str, Array]:
    """What a batch adds to the metrics of its split.

    Args:
      logits: `[B, K]`.
      labels: integer classes `[B]`.
      mask: `[B]`, 1 for an example that counts, 0 for filling.

    Returns:
      `count` [], `loss` [] (summed cross-entropy in nats), `accuracy` [] (number correct) and `confusion` `[K, K]`
      (number of examples of true class by row, predicted class by column).
    """
    classes = logits.shape[-1]
    predicted = jax.nn.one_hot(logits.argmax(-1), classes, dtype=jnp.float32)
    true = jax.nn.one_hot(labels, classes, dtype=jnp.float32) * mask[:, None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {
        "count": mask.sum(),
        "loss": jnp.where(mask > 0, loss, 0).sum(),
        "accuracy": ((logits.argmax(-1) == labels) * mask).sum(),
        "confusion": jnp.einsum("bi,bj->ij", true, predicted),
    }
