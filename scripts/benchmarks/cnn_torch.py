"""The sides of PyTorch in scripts/bench cnn."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from scripts.benchmarks import timing
from scripts.benchmarks.torch_models import MODELS

COMPILE = True  # whether torch.compile is tried


def has_gpu() -> bool:
    """Whether PyTorch sees one."""
    return torch.cuda.is_available()


def training(
    case: Any, images: np.ndarray, labels: np.ndarray, dtype: str, device: str, kind: str
) -> Callable[[], None]:
    """One step of one model on one batch."""
    channels_last = torch.channels_last if "channels_last" in kind else torch.contiguous_format
    torch.manual_seed(0)
    model: Any = MODELS[case.model](num_classes=10, channels=case.image[2])
    model = model.to(device).to(memory_format=channels_last).train()
    rule = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x = torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), device=device).to(memory_format=channels_last)
    y = torch.tensor(labels, dtype=torch.long, device=device)
    narrow = dtype == "bfloat16"

    def loss() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            logits = model(x)
        return F.cross_entropy(logits.float(), y)

    compute = torch.compile(loss) if "compile" in kind else loss

    def step() -> None:
        rule.zero_grad(set_to_none=True)
        compute().backward()
        rule.step()

    return step


def sides(case: Any, images: np.ndarray, labels: np.ndarray, dtype: str, gpu: bool) -> list[timing.Side]:
    """Every way that works, named; those that fail are told on stderr."""
    device = "cuda" if gpu else "cpu"
    kinds = ["PyTorch", "PyTorch channels_last"]
    kinds += ["torch.compile", "torch.compile channels_last"] if COMPILE else []
    found = []
    for kind in kinds:
        pairs = zip(images, labels, strict=True) if case.population else [(images, labels)]
        try:
            steps = [training(case, x, y, dtype, device, kind) for x, y in pairs]

            def call(steps: list[Callable[[], None]] = steps) -> None:
                for step in steps:
                    step()
                if gpu:
                    torch.cuda.synchronize()

            call()
            call()
        except Exception as error:  # torch.compile has many ways to fail: no compiler, an unsupported processor
            print(f"cnn: {kind} does not work here: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found.append(timing.Side(kind, 1, call))
    return found
