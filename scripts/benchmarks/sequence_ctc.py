"""CTC in scripts/bench sequence: the loss and its gradient by the logits, against PyTorch and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from dlfx.ops.ctc import ctc_loss
from scripts.benchmarks import timing

BATCH, FRAMES, CLASSES, LONGEST = 16, 200, 40, 30


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random logits `[B, T, K]`, their lengths, labels `[B, L]` and theirs, as a padded batch has them."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((BATCH, FRAMES, CLASSES), np.float32)
    labels = rng.integers(1, CLASSES, (BATCH, LONGEST), np.int32)
    frames, sizes = rng.integers(150, FRAMES + 1, BATCH, np.int32), rng.integers(10, LONGEST + 1, BATCH, np.int32)
    return logits, frames, labels, sizes


def loss_and_gradient() -> list[timing.Side]:
    """16 utterances of up to 200 frames and 40 classes with labels of up to 30 symbols."""
    x, frames, labels, sizes = map(jnp.asarray, data())
    silent = (jnp.arange(FRAMES) >= frames[:, None]).astype(x.dtype)
    unsaid = (jnp.arange(LONGEST) >= sizes[:, None]).astype(x.dtype)
    ours = jax.jit(jax.value_and_grad(lambda x: ctc_loss(x, frames, labels, sizes).mean()))
    theirs = jax.jit(jax.value_and_grad(lambda x: optax.ctc_loss(x, silent, labels, unsaid).mean()))

    leaf, frames_torch, labels_torch, sizes_torch = map(torch.tensor, data())
    leaf.requires_grad_()

    def by_torch() -> None:
        leaf.grad = None
        log_probs = leaf.log_softmax(-1).transpose(0, 1)
        losses = torch.nn.functional.ctc_loss(log_probs, labels_torch, frames_torch, sizes_torch, reduction="none")
        losses.mean().backward()

    sides = [
        timing.Side("dlfx", 1, lambda: jax.block_until_ready(ours(x))),
        timing.Side("torch", 1, by_torch),
        timing.Side("optax", 1, lambda: jax.block_until_ready(theirs(x))),
    ]
    for side in sides:
        side.call()  # compiles
    return sides
