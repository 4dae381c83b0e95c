"""The side of CTC in scripts/bench sequence: the loss and its gradient against torch.nn.functional.ctc_loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from dlfx.ops.ctc import ctc_loss

BATCH, FRAMES, CLASSES, LONGEST = 16, 200, 40, 30


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random logits `[B, T, K]`, their lengths, labels `[B, L]` and theirs, as a padded batch has them."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((BATCH, FRAMES, CLASSES), np.float32)
    labels = rng.integers(1, CLASSES, (BATCH, LONGEST), np.int32)
    frames, sizes = rng.integers(150, FRAMES + 1, BATCH, np.int32), rng.integers(10, LONGEST + 1, BATCH, np.int32)
    return logits, frames, labels, sizes


def cases() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name to what dlfx calls and what PyTorch calls; each is one loss and gradient, done when it returns."""
    logits, frames, labels, sizes = data()
    x = jnp.asarray(logits)
    ours = jax.jit(jax.value_and_grad(lambda x: ctc_loss(x, frames, labels, sizes).mean()))
    leaf = torch.tensor(logits, requires_grad=True)
    rest = [torch.tensor(a) for a in (labels, frames, sizes)]

    def theirs() -> tuple[Any, Any]:
        leaf.grad = None
        loss = torch.nn.functional.ctc_loss(leaf.log_softmax(-1).transpose(0, 1), *rest, reduction="none").mean()
        loss.backward()
        return loss, leaf.grad

    name = f"CTC loss and gradient, batch {BATCH}, {FRAMES} frames, {CLASSES} classes, labels to {LONGEST}"
    return {name: (lambda: jax.block_until_ready(ours(x)), theirs)}
