"""How well a language model predicts a text, from its summed negative log-likelihood."""

import math

import numpy as np

from dlfx.types import UserError


def perplexity(nll: float, count: int) -> float:
    """`exp(nll / count)`: the number of equally likely tokens that would be as hard to predict.

    Sum over a whole split before dividing: a mean of perplexities is something else. Perplexities compare only over
    the same tokens.

    Args:
      nll: summed negative log-likelihood in nats.
      count: the number of tokens that were predicted, without padding.

    Source: Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks.
    """
    with np.errstate(over="ignore"):  # infinite, of a model that is sure and wrong
        return float(np.exp(np.float64(_per(nll, count))))


def bits_per_character(nll: float, count: int) -> float:
    """`nll / (count ln 2)`, comparable between models whatever their tokens, if `count` is of the text's characters.

    Args:
      nll: summed negative log-likelihood of the text in nats.
      count: the number of characters (or bytes: bits per byte) of the text, not of the model's tokens.
    """
    return _per(nll, count) / math.log(2)


def _per(nll: float, count: int) -> float:
    if not count > 0:
        raise UserError(f"the number of tokens or characters is {count}: it must be at least 1")
    return float(nll) / float(count)
