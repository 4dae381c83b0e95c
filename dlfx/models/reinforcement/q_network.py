"""Values of actions: a torso, then a plain or dueling head of plain or noisy layers, K outputs an action."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.types import Array


class NoisyDense(nn.Module):
    """A dense layer whose weights carry learned, factorised Gaussian noise (Fortunato et al. 2018, eq. 9 to 11).

    y = (mu_w + sigma_w f(e_in) f(e_out)^T) x + mu_b + sigma_b f(e_out), f(e) = sign(e) sqrt|e|. One draw serves the
    whole batch; without an rng `noise` the layer is mu_w x + mu_b.
    """

    features: int
    sigma: float = 0.5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, n]` to `[B, features]`."""
        n = x.shape[-1]

        def uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -1, 1) / n**0.5

        spread = nn.initializers.constant(self.sigma / n**0.5)
        kernel = self.param("kernel", uniform, (n, self.features), self.param_dtype)
        bias = self.param("bias", uniform, (self.features,), self.param_dtype)
        kernel_sigma = self.param("kernel_sigma", spread, (n, self.features), self.param_dtype)
        bias_sigma = self.param("bias_sigma", spread, (self.features,), self.param_dtype)
        x = x.astype(self.dtype)
        y = x @ kernel.astype(self.dtype) + bias
        if self.has_rng("noise"):
            draw = jax.random.normal(self.make_rng("noise"), (n + self.features,), self.dtype)
            draw = jnp.sign(draw) * jnp.sqrt(jnp.abs(draw))
            y = y + ((x * draw[:n]) @ kernel_sigma.astype(self.dtype) + bias_sigma) * draw[n:]
        return y


class QNetwork(nn.Module):
    """Outputs `[B, A, K]` for observations.

    Attributes:
      torso: observations to features.
      num_actions: A.
      outputs: K; 1 for expected returns, the number of atoms or quantiles for distributions.
      dueling: Q = V + A - mean over actions of A (Wang et al. 2016, eq. 9), a stream of `hidden` units for each.
      noisy: whether the layers after the torso are noisy.
      hidden: units of each stream of a dueling head; 0: none.
    """

    torso: nn.Module
    num_actions: int
    outputs: int = 1
    dueling: bool = False
    noisy: bool = False
    hidden: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """`[B, *obs]` to `[B, A, K]`, float32 at least."""
        layer = NoisyDense if self.noisy else nn.Dense

        def stream(x: Array, features: int, name: str) -> Array:
            if self.dueling and self.hidden:
                inner = layer(self.hidden, dtype=self.dtype, param_dtype=self.param_dtype, name=f"{name}_hidden")
                x = nn.relu(inner(x))
            return layer(features, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

        x = self.torso(observation)
        out = stream(x, self.num_actions * self.outputs, "advantage" if self.dueling else "values")
        out = out.reshape(len(out), self.num_actions, self.outputs)
        if self.dueling:
            value = stream(x, self.outputs, "value")[:, None, :]
            out = value + out - out.mean(1, keepdims=True)
        return out.astype(jnp.promote_types(self.dtype, jnp.float32))
