import math

import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.metrics.language import bits_per_character, perplexity
from dlfx.types import UserError


def test_uniform_model():
    """A model that finds K tokens equally likely has perplexity K and log2(K) bits, of any number of tokens."""
    assert perplexity(7 * math.log(27), 7) == pytest.approx(27)
    assert bits_per_character(9 * math.log(8), 9) == pytest.approx(3)
    assert perplexity(jnp.float32(2 * math.log(5)), jnp.int32(2)) == pytest.approx(5, rel=1e-6)


def test_sums_before_it_divides():
    nll = np.array([1.0, 2.0, 6.0])
    assert perplexity(nll.sum(), 3) == pytest.approx(math.exp(3))
    assert perplexity(nll.sum(), 3) != pytest.approx(np.exp(nll).mean())
    # Two tokens of three characters each: the bits are of the characters.
    assert bits_per_character(6 * math.log(2), 6) == pytest.approx(1)


def test_extremes():
    assert perplexity(0.0, 5) == 1
    assert perplexity(1e6, 1) == math.inf
    assert perplexity(math.inf, 3) == math.inf
    for metric in (perplexity, bits_per_character):
        with pytest.raises(UserError, match="number of tokens or characters is 0: it must be at least 1"):
            metric(1.0, 0)
