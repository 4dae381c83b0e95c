"""Training steps of generative models against the same models in PyTorch, A B A B in one process.

A VAE (784-400-20-400-784, Bernoulli, batch 128) and a DCGAN for 28x28 (64 channels, batch 64, one step of both
players), in float32 with Adam, on the batches of one array of random numbers.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # scripts/ is installed nowhere
if importlib.util.find_spec("torch") is None:
    sys.exit("generative: not measured, missing torch: pip install torch")

from dlfx.learners.gan import gan  # noqa: E402
from dlfx.learners.vae import vae  # noqa: E402
from dlfx.losses.adversarial import GAMES  # noqa: E402
from dlfx.models.generative.gan import DCGANCritic, DCGANGenerator  # noqa: E402
from dlfx.models.generative.vae import VAE, DenseDecoder, DenseEncoder  # noqa: E402
from dlfx.training.allocation import keep_freed_memory  # noqa: E402
from dlfx.types import Learner  # noqa: E402
from scripts.benchmarks import generative_torch, timing  # noqa: E402

IMAGE = (28, 28, 1)


def vae_learner() -> Learner:
    """The VAE of dlfx."""
    model = VAE(DenseEncoder((400,)), DenseDecoder(IMAGE, (400,)), 20)
    return vae(model, optax.adam(1e-3), 20)


def dcgan_learner() -> Learner:
    """The DCGAN of dlfx."""
    rule = optax.adam(2e-4, b1=0.5)
    return gan(DCGANGenerator(IMAGE), DCGANCritic(), GAMES["non_saturating"], rule, rule, latent=100)


CASES: dict[str, tuple[Callable[[], Learner], Callable[[np.ndarray], Callable[[], Any]], int]] = {
    "VAE 784-400-20, batch 128": (vae_learner, generative_torch.vae, 128),
    "DCGAN 28x28, batch 64, both players": (dcgan_learner, generative_torch.dcgan, 64),
}


def ours(learner: Learner, images: np.ndarray, steps: int) -> timing.Side:
    """So many steps in one compiled call, as a recipe runs them."""
    batch = {"image": jax.numpy.asarray(images), "label": jax.numpy.zeros(len(images), int)}
    state = learner.init(jax.random.key(0), batch)
    if steps == 1:
        run = jax.jit(learner.step, donate_argnums=0)
    else:
        run = jax.jit(
            lambda state, batch: jax.lax.scan(lambda s, _: learner.step(s, batch), state, None, steps), donate_argnums=0
        )
    held = [run(state, batch)[0]]

    def call() -> None:
        held[0], metrics = run(held[0], batch)
        jax.block_until_ready((held[0], metrics))

    return timing.Side("dlfx", steps, call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of dlfx in one call")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    keep_freed_memory()  # as the experiments do
    if not options.json:
        print(f"{os.cpu_count()} CPUs, {jax.default_backend()}, load average {os.getloadavg()[0]:.1f} before")
    rows = []
    for name, (learner, peer, batch) in CASES.items():
        images = np.random.default_rng(0).random((batch, *IMAGE), np.float32)
        step = peer(images)
        step()
        sides = [ours(learner(), images, options.steps), timing.Side("PyTorch", 1, step)]
        rates = timing.interleave(sides, options.seconds, options.rounds)
        ratio, low, high = timing.compare(rates["dlfx"], rates["PyTorch"])
        milliseconds = {side: 1e3 / float(np.median(rates[side])) for side in rates}
        rows.append({"case": name, "dlfx_ms": milliseconds["dlfx"], "peer_ms": milliseconds["PyTorch"], "ratio": ratio})
        if not options.json:
            told = "  ".join(f"{side} {value:.2f} ms" for side, value in milliseconds.items())
            print(f"{name}: {told}  ratio {ratio:.2f} ({low:.2f} to {high:.2f})", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
