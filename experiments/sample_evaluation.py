"""What generated examples are worth: modes of a density, distances of images, and plain words where a GAN failed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.data import densities, sources
from dlfx.metrics import frechet, generative, manifold
from experiments import classifiers

Scores = dict[str, float]
Judge = Callable[[np.ndarray, np.ndarray | None], Scores]  # examples `[n, ...]` and the labels they were to have

CHUNK = 500  # images at once
NEIGHBOURS = 2000  # images at most of each side of precision and recall, which take the square of that


def of_density(mixture: densities.Mixture) -> Judge:
    """Judges points `[n, 2]`: `quality`, the share within three standard deviations of a mode, and `modes` covered.

    A mode counts as covered where it has a tenth of its share of the points, so that a stray one does not count.
    """

    def judge(points: np.ndarray, _: Any) -> Scores:
        least = max(1, len(points) // (10 * len(mixture.centers)))
        found = generative.modes(jnp.asarray(points), jnp.asarray(mixture.centers), mixture.std, least=least)
        return {
            "quality": float(found["quality"]),
            "modes": float(found["covered"]),
            "divergence": float(found["divergence"]),
        }

    return judge


def of_images(
    train: np.ndarray, test: np.ndarray, test_labels: np.ndarray, classifier: classifiers.Classifier | None
) -> Judge:
    """Judges images in [0, 1] against the test images, all `[n, H, W, C]`.

    `pixel_distance` is the Frechet distance of raw pixels, `pixel_floor` that between training and test images, and
    `spread` the root of the ratio of the pixels' variances (with labels those within a class), 1 where samples vary as
    much as the data. A classifier adds
    `frechet_distance` and `frechet_floor` of its features, `precision` and `recall`; `smallest_share` and
    `largest_share`, of the classes it sees in proportion to those of the test images; and `agreement`, how often it
    sees the class that an image was to have.
    """
    spaces: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pixel": lambda images: images.reshape(len(images), -1)}
    if classifier is not None:
        features, logits = classifier.features, classifier.logits
        spaces["frechet"] = lambda images: in_chunks(features, images)
    references = {name: features_of(test) for name, features_of in spaces.items()}
    floors = {f"{n}_floor": frechet.frechet_distance_of(f(train), references[n]) for n, f in spaces.items()}

    def judge(images: np.ndarray, labels: np.ndarray | None) -> Scores:
        seen = {name: features_of(images) for name, features_of in spaces.items()}
        scores = {f"{n}_distance": frechet.frechet_distance_of(x, references[n]) for n, x in seen.items()}
        scores |= floors
        told_apart = (None, None) if labels is None else (labels, test_labels)
        generated, data = (variance(x["pixel"], y) for x, y in zip((seen, references), told_apart, strict=True))
        scores["spread"] = float(np.sqrt(generated / data))
        if classifier is None:
            return scores
        real, made = (jnp.asarray(side[:NEIGHBOURS]) for side in (references["frechet"], seen["frechet"]))
        near = manifold.precision_recall(real, made)
        scores |= {name: float(near[name]) for name in ("precision", "recall")}
        classes = int(test_labels.max()) + 1
        if classifier.num_classes == classes:
            told = in_chunks(logits, images)
            shares = generative.class_shares(jnp.asarray(told), jnp.bincount(jnp.asarray(test_labels), length=classes))
            scores |= {f"{name}_share": float(shares[name]) for name in ("smallest", "largest")}
            if labels is not None:
                scores["agreement"] = float((told.argmax(-1) == labels).mean())
        return scores

    return judge


def variance(values: np.ndarray, labels: np.ndarray | None) -> float:
    """The variance of values `[n, D]` summed over D: around their mean, or with labels around that of their class."""
    if labels is None:
        return float(values.var(0).sum())
    return sum(float(values[labels == k].var(0).sum() * (labels == k).mean()) for k in np.unique(labels))


def in_chunks(function: Callable[[Any], Any], examples: np.ndarray) -> np.ndarray:
    """A function of examples `[n, ...]`, row by row the same, computed in chunks of one size."""
    chunk = min(CHUNK, len(examples))
    parts = []
    for start in range(0, len(examples), chunk):
        rows = np.arange(start, start + chunk) % len(examples)
        parts.append(np.asarray(function(examples[rows])))
    return np.concatenate(parts)[: len(examples)]


def pixels(source: sources.Source, prepare: Callable[[Any], Any], most: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a source, prepared, `[n, H, W, C]` float32, and their labels."""
    examples = sources.read_all(sources.subset(source, np.arange(min(most, source.size))))
    return in_chunks(jax.jit(prepare), examples["image"]).astype(np.float32), examples["label"]


def complaints(scores: Mapping[str, float], d_real: float, d_fake: float, probabilities: bool, modes: int) -> list[str]:
    """What went wrong with one GAN, in words; nothing where nothing is known to have.

    Args:
      scores: of the last evaluation.
      d_real: the critic's mean on real examples at the end.
      d_fake: on generated ones.
      probabilities: whether these are probabilities.
      modes: of the density; 0 for images.
    """
    said = []
    if 0 < scores.get("modes", 0) < modes:
        said.append(f"collapsed: {scores['modes']:.0f} of {modes} modes")
    if modes and scores["quality"] < 0.5:
        said.append(f"only {scores['quality']:.0%} of the samples lie within 3 standard deviations of a mode")
    if not modes and scores["spread"] < 0.5:
        said.append(f"collapsed: the samples vary {scores['spread']:.2f} times as much as the data")
    if not modes and scores["spread"] > 1.5:
        said.append(f"the samples vary {scores['spread']:.2f} times as much as the data")
    if scores.get("recall", 1) < 0.1:
        said.append(f"collapsed: the samples come near only {scores['recall']:.0%} of the data, the recall")
    if scores.get("smallest_share", 1) < 0.1:
        said.append(f"a class is all but missing: {scores['smallest_share']:.2f} of its share of the data")
    if scores.get("agreement", 1) < 0.5:
        said.append(f"only {scores['agreement']:.0%} of the samples are of the class that they were to have")
    if probabilities and d_real > 0.97 and d_fake < 0.03:
        said.append(f"the critic won: D(x) {d_real:.3f}, D(G(z)) {d_fake:.3f}; the minimax loss has saturated")
    return said
