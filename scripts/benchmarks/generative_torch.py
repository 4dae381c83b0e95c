"""The generative models of the benchmark as a user of PyTorch writes them: one function that does a training step."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(os.cpu_count() or 1)


def as_torch(images: np.ndarray) -> torch.Tensor:
    """Images `[B, H, W, C]` as `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def vae(images: np.ndarray) -> Callable[[], Any]:
    """A step of the VAE 784-400-20."""
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    x = as_torch(images).flatten(1)

    def step() -> None:
        optimizer.zero_grad()
        mean, log_variance = encoder(x).chunk(2, 1)
        latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        loss = F.binary_cross_entropy_with_logits(decoder(latents), x, reduction="sum")
        loss = loss - 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        (loss / len(x)).backward()
        optimizer.step()

    return step


def dcgan(images: np.ndarray) -> Callable[[], Any]:
    """A step of critic and generator, as PyTorch's own example does it: the generated images are made once."""
    generator = nn.Sequential(
        nn.Linear(100, 7 * 7 * 128, bias=False),
        nn.Unflatten(1, (128, 7, 7)),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Tanh(),
    )
    critic = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128 * 7 * 7, 1),
    )
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (critic, generator)]
    x = as_torch(images)

    def step() -> None:
        fake = generator(torch.randn(len(x), 100))
        optimizers[0].zero_grad()
        (F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        optimizers[1].step()

    return step
