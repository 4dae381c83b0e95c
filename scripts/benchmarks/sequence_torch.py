"""The sides of PyTorch in scripts/bench sequence."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from scripts.benchmarks import timing


def training_side(model: Any, loss: Any, rule: Any) -> timing.Side:
    """One eager step: `loss()`, backward, and the rule."""
    model.train()

    def call() -> None:
        rule.zero_grad(set_to_none=True)
        loss().backward()
        rule.step()

    call()
    call()
    return timing.Side("PyTorch", 1, call)


def recurrent(cell: str, x: np.ndarray, y: np.ndarray) -> timing.Side:
    """`torch.nn.LSTM` or `GRU` on inputs and targets `[B, T, units]`."""
    torch.manual_seed(0)
    model: Any = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](x.shape[-1], y.shape[-1], batch_first=True)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    return training_side(
        model, lambda: F.mse_loss(model(inputs)[0], targets), torch.optim.SGD(model.parameters(), lr=0.1)
    )
