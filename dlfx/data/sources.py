"""Images with labels, with random access: embedded digits and faces, and any prepared TFDS set, without TensorFlow."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlfx.types import UserError, unknown

Examples = dict[str, np.ndarray]  # {"image": [b, H, W, C], "label": [b]}


class Source(NamedTuple):
    """One split of a data set.

    Attributes:
      name: what to call it.
      size: the number of examples.
      read: integer indices `[b]` to `{"image": [b, H, W, C] uint8 or float32 in [0, 1], "label": [b] int32}`.
      shape: `(H, W, C)` of an image.
      num_classes: the number of classes.
      mean: mean of the training pixels on the scale [0, 1].
      std: their standard deviation.
    """

    name: str
    size: int
    read: Callable[[np.ndarray], Examples]
    shape: tuple[int, int, int]
    num_classes: int
    mean: float
    std: float


# Mean and standard deviation over all pixels and channels of the training split, for sets in common use.
PIXEL_STATISTICS = {
    "digits": (0.3053, 0.3762),
    "digits_0to5": (0.3053, 0.3762),  # as all ten: what one net has learned of the ones shall serve for the others
    "digits_6to9": (0.3053, 0.3762),
    "mnist": (0.1307, 0.3081),
    "fashion_mnist": (0.2860, 0.3530),
    "cifar10": (0.4734, 0.2516),
}


def from_arrays(name: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> Source:
    """A source over arrays in memory: images `[n, H, W, C]`, labels `[n]`."""
    labels = labels.astype(np.int32)
    mean, std = PIXEL_STATISTICS.get(name, (0.5, 0.25))

    def read(indices: np.ndarray) -> Examples:
        return {"image": images[indices], "label": labels[indices]}

    return Source(name, len(images), read, images.shape[1:], num_classes, mean, std)


def subset(source: Source, indices: np.ndarray) -> Source:
    """The examples of a source at the given indices `[m]`, in that order."""
    return source._replace(size=len(indices), read=lambda chosen: source.read(indices[chosen]))


def holdout(labels: np.ndarray, every: int) -> np.ndarray:
    """A stratified split by rule: mask `[n]`, true for the last of each `every` examples of a class, in file order."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    return held


def split_validation(train: Source, fraction: float) -> tuple[Source, Source]:
    """Training source to (the rest, a stratified validation part of about `fraction`), by the rule of `holdout`."""
    if not 0 < fraction <= 0.5:
        raise UserError(f"a validation fraction of {fraction} is not possible; it must be above 0 and at most 0.5")
    held = holdout(read_all(train)["label"], round(1 / fraction))
    return subset(train, np.flatnonzero(~held)), subset(train, np.flatnonzero(held))


def digits() -> tuple[Source, Source]:
    """The 1,797 handwritten 8x8 digits of scikit-learn, as (train, test), split 80/20 by rule.

    Every fifth image of each class, in the order of the file, is a test image: 1,442 to train on and 355 to test.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    test = holdout(data.target, every=5)
    source = from_arrays("digits", images, data.target, 10)
    return subset(source, np.flatnonzero(~test)), subset(source, np.flatnonzero(test))


def digits_between(first: int, last: int) -> tuple[Source, Source]:
    """`digits` from the one to the other, as classes 0, 1 and so on: a task to learn on, and one to transfer to."""

    def between(source: Source) -> Source:
        examples = read_all(source)
        chosen = (first <= examples["label"]) & (examples["label"] <= last)
        name, labels = f"digits_{first}to{last}", examples["label"][chosen] - first
        return from_arrays(name, examples["image"][chosen], labels, last - first + 1)

    train, test = digits()
    return between(train), between(test)


def faces() -> tuple[Source, Source]:
    """The 100 grey faces, 25x25, of scikit-image's sample of LFW, as (train, test): every fifth is a test image.

    One class. Source: Huang et al. 2007, Labeled Faces in the Wild, as sampled by scikit-image's `lfw_subset`.

    Raises:
      UserError: if scikit-image is not installed.
    """
    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise UserError("data set faces needs scikit-image: pip install -e '.[faces]'") from error
    images = lfw_subset()[:100].astype(np.float32)[..., None]
    labels = np.zeros(len(images), np.int32)
    test = holdout(labels, every=5)
    source = from_arrays("faces", images, labels, 1)
    return subset(source, np.flatnonzero(~test)), subset(source, np.flatnonzero(test))


def default_data_dir() -> str:
    """Where TFDS keeps prepared data: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")


def tfds(name: str, data_dir: str = "") -> tuple[Source, Source]:
    """A prepared TFDS image classification set, as (train, test), read from array_record without TensorFlow.

    Args:
      name: the TFDS name, with a configuration after a slash where there is one.
      data_dir: the TFDS directory; empty for `default_data_dir()`.

    Raises:
      UserError: at once, and never after a look at the network, when the set is not prepared there, is prepared in
        another format, is truncated, or is not an image classification set.
    """
    directory, prepare = prepared(name, data_dir)
    with readable(name, directory, prepare):
        builder = open_prepared(directory)
        features = builder.info.features
        if not {"image", "label"} <= set(features or {}) or len(features["image"].shape) != 3:
            raise UserError(
                f"data set tfds:{name} is not made of images with one label (its features: {list(features)})"
            )
        missing = {"train", "test"} - set(builder.info.splits)
        if missing:
            raise UserError(f"data set tfds:{name} has no split {sorted(missing)}; it has {list(builder.info.splits)}")
        splits = [_tfds_split(builder, name, split) for split in ("train", "test")]
    return splits[0], splits[1]


def prepared(name: str, data_dir: str = "") -> tuple[Path, str]:
    """The directory of a prepared TFDS set, and how to prepare it.

    Raises:
      UserError: at once, and never after a look at the network, when it is not there.
    """
    root = Path(data_dir or default_data_dir()).expanduser()
    prepare = f"prepare it with: scripts/prepare_data {name} --data_dir={root}"
    versions = sorted((root / name).glob("*/dataset_info.json"))
    if not versions:
        nearby = sorted({info.parent.parent.name for info in root.glob("*/*/dataset_info.json")})
        found = f"it holds {', '.join(nearby)}" if nearby else "no prepared data set is there"
        raise UserError(f"data set tfds:{name} is not prepared in {root} ({found}); {prepare}")
    return versions[-1].parent, prepare


def open_prepared(directory: Path):  # type: ignore[no-untyped-def]
    """The TFDS builder of a prepared set."""
    os.environ.setdefault("TFDS_DISABLE_TELEMETRY", "1")
    import tensorflow_datasets

    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS recommends OpenCV at length
    return tensorflow_datasets.builder_from_directory(directory)


@contextlib.contextmanager
def readable(name: str, directory: Path, prepare: str) -> Iterator[None]:
    """Turns whatever the readers of TFDS raise into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the readers below TFDS raise what they like on a damaged file
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"data set tfds:{name} in {directory} cannot be read ({detail}); {prepare}") from error


def records(builder, name: str, split: str):  # type: ignore[no-untyped-def]
    """The records of a split of a TFDS set, with random access.

    Raises:
      UserError: if there are fewer than there should be.
    """
    info = builder.info.splits[split]
    found = builder.as_data_source(split=split)
    if len(found) != info.num_examples:
        raise UserError(
            f"data set tfds:{name}, split {split}, is truncated: {len(found)} of {info.num_examples} examples in "
            f"{builder.data_dir}; delete that directory and prepare it again with scripts/prepare_data {name}"
        )
    return found


def _tfds_split(builder, name: str, split: str) -> Source:  # type: ignore[no-untyped-def]
    rows_of = records(builder, name, split)

    def read(indices: np.ndarray) -> Examples:
        rows = rows_of.__getitems__([int(i) for i in indices])
        return {
            "image": np.stack([row["image"] for row in rows]),
            "label": np.asarray([row["label"] for row in rows], np.int32),
        }

    first = read(np.arange(1))["image"]
    mean, std = PIXEL_STATISTICS.get(name, (0.5, 0.25))
    return Source(
        f"tfds:{name}", len(rows_of), read, first.shape[1:], builder.info.features["label"].num_classes, mean, std
    )


def read_all(source: Source, chunk: int = 1024) -> Examples:
    """Every example of a source, in order: `{"image": [n, H, W, C], "label": [n]}`."""
    parts = [source.read(np.arange(i, min(i + chunk, source.size))) for i in range(0, source.size, chunk)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


SOURCES: dict[str, Callable[[], tuple[Source, Source]]] = {
    "digits": digits,
    "digits_0to5": partial(digits_between, 0, 5),
    "digits_6to9": partial(digits_between, 6, 9),
    "faces": faces,
}


def load(dataset: str, data_dir: str = "") -> tuple[Source, Source]:
    """The (train, test) sources of a name: one of `SOURCES`, or `tfds:NAME`.

    Raises:
      UserError: for an unknown name, with the closest ones; or see `tfds`.
    """
    if dataset.startswith("tfds:"):
        return tfds(dataset.removeprefix("tfds:"), data_dir)
    if dataset not in SOURCES:
        raise unknown(
            "data set",
            dataset,
            [*SOURCES, *(f"tfds:{name}" for name in PIXEL_STATISTICS if name not in SOURCES), "tfds:NAME"],
        )
    return SOURCES[dataset]()
