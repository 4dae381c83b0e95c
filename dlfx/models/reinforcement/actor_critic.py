"""A policy and its baseline: two heads on one torso, or on a torso each."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.types import Array


class ActorCritic(nn.Module):
    """Logits of actions and the value of the state.

    Attributes:
      torso: observations to features, for the policy.
      critic_torso: the same for the value; None: the policy's.
      num_actions: A.
    """

    torso: nn.Module
    critic_torso: nn.Module | None
    num_actions: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, observation: Array) -> tuple[Array, Array]:
        """`[B, *obs]` to (logits `[B, A]`, values `[B]`), float32 at least."""

        def head(features: int, scale: float, name: str) -> nn.Dense:
            start = nn.initializers.orthogonal(scale)  # a small one begins with nearly equal probabilities
            return nn.Dense(features, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=start, name=name)

        features = self.torso(observation)
        judged = features if self.critic_torso is None else self.critic_torso(observation)
        logits, value = head(self.num_actions, 0.01, "policy")(features), head(1, 1.0, "value")(judged)[:, 0]
        exact = jnp.promote_types(self.dtype, jnp.float32)
        return logits.astype(exact), value.astype(exact)
