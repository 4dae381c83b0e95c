"""What vectors of sentences are good for: finding sentences that are alike, and telling their labels."""

from typing import Any, NamedTuple

import numpy as np

from dlfx.metrics.edit_distance import corpus_edits
from experiments.sentences import Sentences

NEAREST = 10  # training sentences for each
FEWEST = 64  # labels that a classifier learns from


class Vectors(NamedTuple):
    """The vectors of the sentences of two splits, dense or sparse, `[n, D]` each."""

    train: Any
    held: Any


class Neighbours(NamedTuple):
    """Of each held sentence the training sentences with the largest cosines, the nearest first, `[n, NEAREST]`."""

    numbers: np.ndarray
    cosines: np.ndarray


def counted(data: Sentences, split: str) -> dict[str, Vectors]:
    """Two vectors without learning: tf-idf of words, and of words and pairs of words that follow each other."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def words(row: np.ndarray) -> list[str]:
        return list(map(str, row))

    def pairs(row: np.ndarray) -> list[str]:
        return [*words(row), *(f"{a} {b}" for a, b in zip(row, row[1:], strict=False))]

    found = {}
    for name, analyzer in (("bag of words", words), ("bag of words and pairs", pairs)):
        vectorizer = TfidfVectorizer(analyzer=analyzer)
        found[name] = Vectors(vectorizer.fit_transform(data.rows["train"]), vectorizer.transform(data.rows[split]))
    return found


def neighbours(vectors: Vectors) -> Neighbours:
    """The nearest training sentences."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEAREST, vectors.train.shape[0])
    index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(vectors.train)
    distances, numbers = index.kneighbors(vectors.held)
    return Neighbours(numbers, 1 - distances)


def same_label(data: Sentences, split: str, near: Neighbours) -> float:
    """The share of the `NEAREST` that have the label of the sentence."""
    return float((data.classes["train"][near.numbers] == data.classes[split][:, None]).mean())


def nearest_edits(data: Sentences, split: str, near: Neighbours) -> float:
    """Edits for each token between the nearest training sentences and those that they are near to.

    It is the word error rate of an answer with the nearest sentence: the less, the more do words and order agree.
    """
    found = [data.rows["train"][k].tolist() for k in near.numbers[:, 0]]
    return corpus_edits(found, [row.tolist() for row in data.rows[split]]).rate


def probe(data: Sentences, split: str, vectors: Vectors) -> dict[str, list[Any]]:
    """Logistic regression (with sklearn's penalty, C = 1) from the vectors of some training sentences to their labels.

    The sentences are the same ones for all vectors, drawn at random. Dense vectors are first standardised.

    Returns:
      How many `examples` had labels, and the `accuracy` on the held sentences; all of them come last.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    labels, n = data.classes["train"], len(data.classes["train"])
    train, held = vectors
    if isinstance(train, np.ndarray):  # sentences without labels may say how large the numbers are
        scaler = StandardScaler().fit(train)
        train, held = scaler.transform(train), scaler.transform(held)
    order = np.random.Generator(np.random.Philox(key=0)).permutation(n)
    sizes = [size for size in (FEWEST * 4**k for k in range(20)) if size < n]
    found: dict[str, list[Any]] = {"examples": [], "accuracy": []}
    for size in [*sizes, n]:
        some = order[:size]
        if len(np.unique(labels[some])) > 1:
            classifier = LogisticRegression(max_iter=5000).fit(train[some], labels[some])
            found["examples"].append(size)
            found["accuracy"].append(float((classifier.predict(held) == data.classes[split]).mean()))
    return found
