"""What vectors of words have learned: the words nearest to a word, and analogies."""

import numpy as np


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[V, D]` of length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(vectors: np.ndarray, words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The words with the largest cosine to each of some words, themselves left out.

    Args:
      vectors: `[V, D]`.
      words: numbers of words `[n]`.
      count: how many to give of each, fewer than V.

    Returns:
      (their numbers `[n, count]`, the nearest first, their cosines `[n, count]`).
    """
    units = normalized(vectors)
    cosines = units[words] @ units.T
    cosines[np.arange(len(words)), words] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, 1)


def analogies(vectors: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """Answers to "a is to b as c is to what?": the word whose cosine to `b - a + c` is the largest.

    The three words of the question are never the answer; vectors are first brought to length 1.

    Args:
      vectors: `[V, D]`, V at least 4.
      questions: the numbers of a, b and c `[n, 3]`.

    Returns:
      `[n]` numbers of words.

    Source: Mikolov, Yih and Zweig 2013, Linguistic Regularities in Continuous Space Word Representations, section 4.
    """
    units = normalized(vectors)
    a, b, c = questions.T
    found = (units[b] - units[a] + units[c]) @ units.T
    np.put_along_axis(found, questions, -np.inf, 1)
    return found.argmax(1)
