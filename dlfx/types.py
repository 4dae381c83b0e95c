"""The contract that every part of dlfx shares: keys, batches, metrics, streams and the Learner pair."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed PRNG key, jax.random.key(seed)
Batch = Any  # a pytree of arrays; for images {"image": [B, H, W, C], "label": [B]}
State = Any  # a NamedTuple of arrays, with a step counter and a key
Metrics = Mapping[str, Array]  # name to scalar


class Learner(NamedTuple):
    """A learning rule: how a state begins, and how one batch changes it.

    `step` has the signature of a `lax.scan` body, so the same pair runs one batch a call, K steps a call, as a
    population under `vmap`, on a mesh, or under `pmap`. A state holds arrays only. The randomness of step i is
    `fold_in(state.key, state.step)`; the key in the state never changes.
    """

    init: Callable[[Key, Batch], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]


def example_keys(key: Key, step: Array | int, first: Array | int, count: int) -> Key:
    """One key per example, `[count]`, that depends on the example's row in the global batch and not on who holds it.

    Args:
      key: the key of the run, `state.key`.
      step: the training step.
      first: the global row of the first example here.
      count: the number of examples here.
    """
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(step_key, 0), first + row))(
        jax.numpy.arange(count)
    )


def plain_map(load: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """`map`, with the signature of `Stream.prefetch`."""
    return map(load, steps)


class Stream(NamedTuple):
    """Where the batches of a run come from: batch i is a pure function of (seed, i).

    A batch is made in two halves, so that a data set that fits on the device never leaves it: `host` gives what
    travels (the images themselves, or only their indices), `fetch` turns that into the batch inside the compiled step.
    Whatever the placement, batch i is the same.

    Attributes:
      host: (seed, i) to a pytree of NumPy arrays `[b, ...]`, this process's rows of batch i.
      arrays: a pytree of arrays that stays on the device; `()` when the batches travel whole.
      fetch: (arrays, what travelled) to the batch. Traced.
      prefetch: (load, range) to an iterator over `load(i)`, in order; may work ahead in threads.
    """

    host: Callable[[int, int], Batch]
    arrays: Any = ()
    fetch: Callable[[Any, Batch], Batch] = lambda arrays, batch: batch
    prefetch: Callable[[Callable[[int], Any], range], Iterable[Any]] = plain_map


class UserError(ValueError):
    """The user gave something wrong. The message names it and what is allowed; entry points print it alone, exit 2."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among those allowed: lists them, and the closest ones first."""
    names = list(allowed)
    close = difflib.get_close_matches(name, names, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return UserError(f"unknown {kind} {name!r}{hint} (there is {', '.join(names)})")
