"""Batches of a source as a pure function of (seed, i), from the host or resident on the device."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.data import augment as augmentation
from dlfx.data import sources
from dlfx.types import Array, Batch, Stream, UserError, example_keys

RESIDENT_BYTES = 1 << 30  # sets up to this size stay on the device by default
TRAIN_PERMUTATION = 0x9E3779B9  # keeps the data order apart from every other use of the seed


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, TRAIN_PERMUTATION], counter=[0, 0, 0, epoch])).permutation(
        size
    )


def order(seed: int, i: int, batch_size: int, size: int) -> np.ndarray:
    """The example indices `[batch_size]` of training batch i: each epoch is a new permutation, its short end left out.

    Args:
      seed: the seed of the run.
      i: the batch (training step), from 0.
      batch_size: examples in a batch, over all devices and processes.
      size: examples in the set.
    """
    epoch, batch = divmod(i, size // batch_size)
    return _permutation(seed, epoch, size)[batch * batch_size : (batch + 1) * batch_size]


def grain_prefetch(load: Callable[[int], Any], steps: range) -> Iterable[Any]:
    """`map(load, steps)` in order, some batches ahead, in grain's threads."""
    import grain

    numbers = grain.MapDataset.range(steps.start, steps.stop, steps.step)
    return numbers.map(load).to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))


def preprocess(image: Array, mean: float, std: float, size: int, resize: str, dtype: Any = jnp.float32) -> Array:
    """Images `[b, H, W, C]`, uint8 or float in [0, 1], to normalised `[b, size, size, C]` of `dtype`.

    Args:
      image: the images.
      mean: the mean of the training pixels on the scale [0, 1].
      std: their standard deviation.
      size: the side wanted; 0 keeps the size.
      resize: `bilinear`, or `pad`: zeros (black) around, or a centre crop where the image is larger.
      dtype: of the result.
    """
    x = image.astype(dtype) / 255 if jnp.issubdtype(image.dtype, jnp.integer) else image.astype(dtype)
    if size and x.shape[1:3] != (size, size):
        if resize == "bilinear":
            x = jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), "bilinear")
        else:
            for axis in (1, 2):
                extra = size - x.shape[axis]
                if extra >= 0:
                    edges = [(0, 0)] * 4
                    edges[axis] = (extra // 2, extra - extra // 2)
                    x = jnp.pad(x, edges)
                else:
                    x = jax.lax.slice_in_dim(x, -extra // 2, -extra // 2 + size, axis=axis)
    return (x - mean) / std


def _placed(
    source: sources.Source,
    prepare: Callable[[Array], Array],
    rows: Callable[[int, int], dict[str, Any]],
    placement: str,
) -> Stream:
    """The stream of a function (seed, i) to `{"index": [b], ...}`, with the examples on the device or on the host."""
    if placement == "auto":
        fits = source.size * source.read(np.arange(1))["image"].nbytes <= RESIDENT_BYTES
        placement = "device" if fits else "host"

    if placement == "host":

        def host(seed: int, i: int) -> Batch:
            batch = rows(seed, i)
            return {**source.read(batch.pop("index")), **batch}

        return Stream(host, (), lambda _, batch: {**batch, "image": prepare(batch["image"])}, grain_prefetch)

    # An image is gathered as one row: XLA on CPU copies rows an order of magnitude faster than small boxes.
    examples = sources.read_all(source)
    arrays = {"image": examples["image"].reshape(source.size, -1), "label": examples["label"]}

    def fetch(arrays: Any, batch: Batch) -> Batch:
        index = batch["index"]
        image = arrays["image"][index].reshape(*index.shape, *source.shape)
        rest = {name: value for name, value in batch.items() if name != "index"}
        return {**rest, "image": prepare(image), "label": arrays["label"][index]}

    return Stream(rows, arrays, fetch)


def augmented_on_host(stream: Stream, augment: augmentation.Augmentation, first: int) -> Stream:
    """A stream of the same batches, prepared and augmented ahead of the step, on the host's CPU.

    The images are those that the learner would have made of them inside its step.

    Args:
      stream: of `{"image": [b, ...], ...}`.
      augment: (key, image) to an image.
      first: the row in the global batch of this process's first example.
    """
    cpu = jax.local_devices(backend="cpu")[0]

    @jax.jit
    def work(seed: Array, i: Array, batch: Batch) -> Batch:
        batch = stream.fetch(stream.arrays, batch)
        keys = example_keys(jax.random.key(seed), i, first, len(batch["label"]))
        return {**batch, "image": jax.vmap(augment)(keys, batch["image"])}

    def host(seed: int, i: int) -> Batch:
        with jax.default_device(cpu):
            return jax.tree.map(np.asarray, work(np.uint32(seed), np.int32(i), stream.host(seed, i)))

    return Stream(host, (), lambda _, batch: batch, grain_prefetch)


def process_slice(batch_size: int, process: int, processes: int) -> slice:
    """The rows of a global batch that belong to a process.

    Raises:
      UserError: if the processes do not divide the batch.
    """
    if batch_size % processes:
        raise UserError(f"a batch of {batch_size} cannot be shared evenly by {processes} processes")
    share = batch_size // processes
    return slice(process * share, (process + 1) * share)


def training_stream(
    source: sources.Source,
    batch_size: int,
    prepare: Callable[[Array], Array],
    placement: str = "auto",
    augment: augmentation.Augmentation | None = None,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """Shuffled batches without end: batch i of seed s holds the examples `order(s, i, ...)`.

    Args:
      source: the training split.
      batch_size: examples in a batch, over all processes.
      prepare: raw images `[b, H, W, C]` to what the model takes; runs inside the compiled step.
      placement: `device`, `host`, or `auto` (on the device up to `RESIDENT_BYTES`).
      augment: applied on the host; None leaves it to the learner.
      process: this process.
      processes: how many there are.

    Returns:
      A stream of `{"image": [b, ...], "label": [b]}`.

    Raises:
      UserError: if the batch is larger than the set, or not positive, or the processes do not divide it.
    """
    if not 1 <= batch_size <= source.size:
        raise UserError(f"batch size {batch_size} is not possible: {source.name} has {source.size} training examples")
    mine = process_slice(batch_size, process, processes)

    def rows(seed: int, i: int) -> dict[str, Any]:
        return {"index": order(seed, i, batch_size, source.size)[mine].astype(np.int32)}

    if augment:
        return augmented_on_host(_placed(source, prepare, rows, "host"), augment, mine.start)
    return _placed(source, prepare, rows, placement)


def evaluation_stream(
    source: sources.Source,
    batch_size: int,
    prepare: Callable[[Array], Array],
    placement: str = "auto",
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """The whole split in file order, once: (stream, number of batches). The last batch is filled up and masked.

    Returns:
      A stream of `{"image": [b, ...], "label": [b], "mask": [b]}`, mask 1 for a real example and 0 for filling, and the
      number of its batches. Metrics summed with the mask are exact over the split.
    """
    mine = process_slice(batch_size, process, processes)

    def rows(seed: int, i: int) -> dict[str, Any]:
        index = np.arange(i * batch_size, (i + 1) * batch_size)[mine]
        real = index < source.size
        return {"index": np.where(real, index, 0).astype(np.int32), "mask": real.astype(np.float32)}

    return _placed(source, prepare, rows, placement), -(-source.size // batch_size)
