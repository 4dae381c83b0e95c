"""The contract that every part of dlfx shares: keys, batches, metrics, streams, environments and the Learner pair."""

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


NO_BATCHES = Stream(lambda seed, i: ())  # of a learner that makes its own experience


class Timestep(NamedTuple):
    """What one step of an environment gives.

    Attributes:
      observation: what to act on next: of a new episode where this step ended one.
      successor: what the action led to. Values are bootstrapped from here; it equals `observation` within an episode.
      reward: [] float32.
      terminated: [] bool, the task ended here: nothing follows, whatever the successor's value.
      truncated: [] bool, a time limit cut the episode here: the successor's value still counts. Never both.
    """

    observation: Any
    successor: Any
    reward: Array
    terminated: Array
    truncated: Array


class Environment(NamedTuple):
    """A Markov decision process to act in, as pure functions. An episode that ends begins anew within the same step.

    Attributes:
      name: what `--env` calls it.
      reset: key to (state, observation).
      step: (key, state, action [] int32) to (state, timestep).
      observation: shape and type of an observation.
      num_actions: actions are 0 ... num_actions - 1.
      num_states: observations are state numbers 0 ... num_states - 1; 0 where they are not.
      max_steps: after so many steps an episode is truncated; 0: never.
      render: a state, as NumPy arrays, to a picture `[H, W, 3]` uint8.
    """

    name: str
    reset: Callable[[Key], tuple[State, Array]]
    step: Callable[[Key, State, Array], tuple[State, Timestep]]
    observation: jax.ShapeDtypeStruct
    num_actions: int
    num_states: int
    max_steps: int
    render: Callable[[State], Any]


class UserError(ValueError):
    """The user gave something wrong. The message names it and what is allowed; entry points print it alone, exit 2."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among those allowed: lists them, and the closest ones first."""
    names = list(allowed)
    close = difflib.get_close_matches(name, names, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return UserError(f"unknown {kind} {name!r}{hint} (there is {', '.join(names)})")
