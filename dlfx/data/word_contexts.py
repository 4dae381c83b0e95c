"""Words with the words around them, as word2vec reads a text: batches as a pure function of (seed, i)."""

from typing import NamedTuple

import numpy as np

from dlfx.data.batches import process_slice
from dlfx.data.sequences import Ragged
from dlfx.types import Batch, Stream, UserError

CONTEXTS = 0xC2B2AE3D  # keeps these draws apart from every other use of a seed
KEPT, ORDER, DRAWN = range(3)  # what is drawn: the words that stay, their order, windows and noise


class Settings(NamedTuple):
    """What a batch is drawn by.

    Attributes:
      window: W, the largest distance of a context word.
      keep: `[V]`, the probability that an occurrence of a word stays in the text; see `keep_probabilities`.
      noise: `[V]`, the distribution of the noise; see `noise_distribution`.
      negatives: K, noise words for each centre; 0 for none.
    """

    window: int
    keep: np.ndarray
    noise: np.ndarray
    negatives: int


def keep_probabilities(counts: np.ndarray, threshold: float) -> np.ndarray:
    """With which probability an occurrence of a word stays: `min(1, sqrt(t / f(w)))`, all 1 for t = 0.

    Args:
      counts: how often every word occurs `[V]`.
      threshold: t, in parts of the text; 1e-5 for texts of billions of words, 1e-3 for short ones.

    Source: Mikolov et al. 2013 (arXiv:1310.4546), equation 5, `P(discard) = 1 - sqrt(t / f)`. The authors' program
      keeps a little more, `sqrt(t / f) + t / f`.
    """
    if not threshold:
        return np.ones(len(counts))
    frequency = counts / counts.sum()
    return np.minimum(1.0, np.sqrt(threshold / np.maximum(frequency, np.finfo(float).tiny)))


def noise_distribution(counts: np.ndarray, power: float = 0.75) -> np.ndarray:
    """The distribution that negative words are drawn from, `counts ** power` normalised, `[V]`.

    Source: Mikolov et al. 2013 (arXiv:1310.4546), section 2.2.
    """
    raised = np.asarray(counts, np.float64) ** power
    return raised / raised.sum()


def _generator(seed: int, what: int, i: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, CONTEXTS], counter=[0, 0, what, i]))


def _subsampled(text: Ragged, keep: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(the words that stay, the sentence of each), both `[n]`."""
    stays = _generator(seed, KEPT, epoch).random(len(text.values), np.float32) < keep[text.values]
    sentence = np.repeat(np.arange(len(text.offsets) - 1, dtype=np.int32), text.lengths)
    return text.values[stays], sentence[stays]


def _batch(
    words: np.ndarray,
    sentence: np.ndarray,
    position: np.ndarray,
    settings: Settings,
    cumulative: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The centres at the positions `[b]`, the words around, and noise."""
    size = len(position)
    reach = generator.integers(1, settings.window + 1, (size, 1))
    offsets = np.concatenate([np.arange(-settings.window, 0), np.arange(1, settings.window + 1)])
    place = position[:, None] + offsets
    inside = (place >= 0) & (place < len(words)) & (np.abs(offsets) <= reach)
    place = np.where(inside, place, 0)
    inside &= sentence[place] == sentence[position][:, None]
    drawn = np.searchsorted(cumulative, generator.random((size, settings.negatives)), side="right")
    return {
        "centre": words[position],
        "contexts": np.where(inside, words[place], 0),
        "real": inside.astype(np.float32),
        "noise": np.minimum(drawn, len(cumulative) - 1).astype(np.int32),  # the last sum may round to below 1
    }


def _check(text: Ragged, settings: Settings) -> None:
    if settings.window < 1:
        raise UserError(f"a window of {settings.window} words is not possible; it must be at least 1")
    if len(text.values) < 2 or text.lengths.max() < 2:
        raise UserError("the text has no two words of the vocabulary in a sentence, so no word has a context")


def training_stream(
    text: Ragged, settings: Settings, batch_size: int, process: int = 0, processes: int = 1
) -> tuple[Stream, int]:
    """Centres in random order with the words around them, without end: (stream, batches of an epoch).

    Every epoch draws anew which words stay, before windows are laid, so that windows reach over what is left out; then
    it takes those as centres, in an order of its own. A centre's window is uniform in 1 ... W, which prefers near
    words; it ends with the sentence. An epoch lasts for as many words as are expected to stay, and begins again where
    fewer do.

    Args:
      text: sentences of word numbers 0 ... V - 1.
      settings: see there.
      batch_size: B, centres in a batch, over all processes.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of `{"centre": [B], "contexts": [B, 2W], "real": [B, 2W], "noise": [B, K]}`, `real` 1 for a context
      word and 0 for filling, and how many batches an epoch has.

    Raises:
      UserError: if no word has a context, the window is not positive, a batch is larger than what stays of the text, or
        the processes do not divide it.
    """
    _check(text, settings)
    mine = process_slice(batch_size, process, processes)
    expected = int(settings.keep[text.values].sum())
    batches = expected // batch_size
    if batches < 1:
        raise UserError(f"batch size {batch_size} is not possible: {expected} words of the text stay to train on")
    cumulative = np.cumsum(settings.noise)
    latest: dict[int, tuple[int, tuple[np.ndarray, ...]]] = {}  # seed to its epoch: large, so only one of each is kept

    def epoch_of(seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        if latest.get(seed, (-1,))[0] != epoch:
            words, sentence = _subsampled(text, settings.keep, seed, epoch)
            order = _generator(seed, ORDER, epoch).permutation(len(words)).astype(np.int32)
            latest[seed] = epoch, (words, sentence, order)
        return latest[seed][1]

    def host(seed: int, i: int) -> Batch:
        epoch, within = divmod(i, batches)
        words, sentence, order = epoch_of(seed, epoch)
        position = order[np.arange(within * batch_size, (within + 1) * batch_size) % len(order)]
        batch = _batch(words, sentence, position, settings, cumulative, _generator(seed, DRAWN, i))
        return {name: value[mine] for name, value in batch.items()}

    return Stream(host), batches


def evaluation_stream(
    text: Ragged, settings: Settings, batch_size: int, process: int = 0, processes: int = 1
) -> tuple[Stream, int]:
    """One such epoch in the text's order, the same for every seed: (stream, batches).

    Args: as of `training_stream`.

    Returns:
      The stream of `training_stream`, `real` 0 throughout for what fills up the last batch, and how many batches there
      are.
    """
    _check(text, settings)
    mine = process_slice(batch_size, process, processes)
    cumulative = np.cumsum(settings.noise)
    words, sentence = _subsampled(text, settings.keep, 0, 0)

    def host(seed: int, i: int) -> Batch:
        position = np.arange(i * batch_size, (i + 1) * batch_size)
        real = position < len(words)
        batch = _batch(words, sentence, np.where(real, position, 0), settings, cumulative, _generator(0, DRAWN, i))
        batch["real"] *= real[:, None]
        return {name: value[mine] for name, value in batch.items()}

    return Stream(host), -(-len(words) // batch_size)
