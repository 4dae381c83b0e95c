"""GPT in scripts/bench sequence: a training step and a beam search, against the same network in PyTorch.

PyTorch's has fused attention (`scaled_dot_product_attention`), AdamW, and keys and values kept while it decodes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.nn import functional as F

from dlfx.models.sequence.gpt import GPT
from dlfx.ops import decoding
from scripts.benchmarks import timing

VOCABULARY, BATCH, END = 65, 12, 0
BEAM = {"sequences": 8, "width": 4, "tokens": 48}


class Block(nn.Module):
    """A block with the norm first, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Any, kept: list[Any] | None = None) -> Any:
        """`[B, T, width]`; with `kept`, keys and values so far, T is 1 and they grow by it."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        if kept is not None:
            k, v = (torch.cat([old, new], 2) for old, new in zip(kept, (k, v), strict=True)) if kept else (k, v)
            kept[:] = [k, v]
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=kept is None)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class TorchGPT(nn.Module):
    """GPT-2's architecture with tied embeddings."""

    def __init__(self, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for p in (self.token.weight, self.position.weight):
            nn.init.normal_(p, std=0.02)

    def forward(self, tokens: Any, kept: list[list[Any]] | None = None, first: int = 0) -> Any:
        x = self.token(tokens) + self.position(torch.arange(first, first + tokens.shape[1]))
        for i, block in enumerate(self.blocks):
            x = block(x, kept[i] if kept is not None else None)
        return self.norm(x) @ self.token.weight.T


def training(layers: int, heads: int, width: int, context: int, steps: int) -> list[timing.Side]:
    """A step of AdamW on 12 windows; of dlfx `steps` of them in one call."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, context + 1), np.int32)
    model = GPT(VOCABULARY, context, layers, heads, width, dropout=0.0, use_bias=False, unroll=layers)
    rule = optax.adamw(1e-3, weight_decay=0.1)

    def step(state: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = model.apply(params, batch[:, :-1], train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

        value, gradient = jax.value_and_grad(loss)(state[0])
        updates, rest = rule.update(gradient, state[1], state[0])
        return (optax.apply_updates(state[0], updates), rest), value

    def call_of(state: Any, batch: Any) -> Any:
        if steps == 1:
            return step(state, batch)
        return jax.lax.scan(lambda state, _: step(state, batch), state, None, steps)

    run: Any = jax.jit(call_of, donate_argnums=0)
    batch = jax.device_put(tokens)
    params = jax.jit(model.init)(jax.random.key(0), batch[:, :-1])
    held = [(params, rule.init(params))]

    def ours() -> None:
        held[0], value = run(held[0], batch)
        jax.block_until_ready((held[0], value))

    ours()
    ours()
    if run._cache_size() != 1:
        raise AssertionError("the step was compiled twice")

    torch.manual_seed(0)
    peer: Any = TorchGPT(layers, heads, width, context)
    adam = torch.optim.AdamW(peer.parameters(), 1e-3, weight_decay=0.1)
    x = torch.tensor(tokens, dtype=torch.long)

    def theirs() -> None:
        adam.zero_grad(set_to_none=True)
        F.cross_entropy(peer(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).backward()
        adam.step()

    theirs()
    return [timing.Side("dlfx", steps, ours), timing.Side("PyTorch", 1, theirs)]


def beam_search() -> list[timing.Side]:
    """8 sequences of 48 tokens, 4 beams, by a GPT of 4 layers and 128 units; no sequence ends before."""
    count, width, length = BEAM["sequences"], BEAM["width"], BEAM["tokens"]
    model = GPT(VOCABULARY, 64, 4, 4, 128, dropout=0.0, use_bias=False, unroll=4)
    first = jnp.ones(count, jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), first[:, None])

    def step(variables: Any, state: Any, tokens: Any) -> Any:
        cache, position = state
        logits, cache = model.apply(variables, tokens[:, None], cache, position[0], method="decode")
        return (cache, position + 1), logits[:, 0].at[:, END].set(-jnp.inf)

    @jax.jit
    def search(variables: Any) -> Any:
        state = model.apply(variables, count, length, method="start"), jnp.zeros(count, jnp.int32)
        return decoding.beam_search(partial(step, variables), state, first, length, width, END)

    torch.manual_seed(0)
    peer: Any = TorchGPT(4, 4, 128, 64)

    @torch.inference_mode()
    def theirs() -> Any:
        kept: list[list[Any]] = [[] for _ in peer.blocks]
        tokens = torch.ones(count * width, 1, dtype=torch.long)
        scores = torch.full((count, width), -torch.inf)
        scores[:, 0] = 0
        written = torch.zeros(count * width, 0, dtype=torch.long)
        rows = torch.arange(count)[:, None] * width
        for t in range(length):
            logits = peer(tokens, kept, t)[:, -1]
            logits[:, END] = -torch.inf
            total = scores[..., None] + logits.log_softmax(-1).view(count, width, -1)
            scores, best = total.flatten(1).topk(width)
            parents = (rows + best // VOCABULARY).flatten()
            tokens = (best % VOCABULARY).view(-1, 1)
            written = torch.cat([written[parents], tokens], 1)
            kept = [[part[parents] for part in block] for block in kept]
        return written

    sides = [
        timing.Side("dlfx", 1, lambda: jax.block_until_ready(search(variables))),
        timing.Side("PyTorch", 1, theirs),
    ]
    for side in sides:
        side.call()
    return sides
