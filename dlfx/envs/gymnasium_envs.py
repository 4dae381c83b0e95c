"""Any environment of gymnasium with discrete actions, as pure functions: an episode is its seed and its actions."""

import contextlib
import difflib
import functools
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array, Environment, Key, Timestep, UserError

LONGEST = 10_000  # steps of an episode, where gymnasium has no limit
KEPT = 128  # live instances; twice the largest batch if that is more
NARROW = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}


class Played(NamedTuple):
    """An episode so far, by what determines it.

    Attributes:
      seed: [] int32, what the episode was reset with.
      actions: `[max_steps]` int32. The first `time` are of this episode, the rest is left over from earlier ones.
      time: [] int32, the number of steps taken.
    """

    seed: Array
    actions: Array
    time: Array


def gymnasium_environment(id: str) -> Environment:
    """A gymnasium environment as a pure one: `s_t = f(seed, a_0, ..., a_{t-1})`.

    The state is the seed and the actions. The host keeps instances that have taken them already; where there is none,
    as after a resume or in another process, a new one takes the same actions again. So a run goes on from a checkpoint
    to the bit, if the environment draws only from its own generator and a reset with a seed leaves nothing of what was
    before, as gymnasium asks. A step of a batch under `vmap` is one call of the host, which steps its members in turn.

    Args:
      id: as `gymnasium.make` takes it, such as `CartPole-v1`; `PACKAGE:ID` for one that another package registers.

    Returns:
      An Environment with a `Played` as state. Observations of a Discrete space are state numbers, those of a Box keep
      their shape and type, but 64 bits become 32. States and actions count from 0. `max_steps` is gymnasium's limit,
      and 10,000 where it has none. `render` gives gymnasium's picture; where it has none, the observation in writing.

    Raises:
      UserError: there is no such environment, something it needs is not installed, its actions are not Discrete, its
        observations are neither a Box nor Discrete, or it is written in JAX, which may not run inside a callback.

    Source: Towers et al. 2024, Gymnasium: A Standard Interface for Reinforcement Learning Environments, section 3.
    """
    make, limit = _maker(id)
    example = make()
    example.close()
    observation, num_actions = _spaces(id, example)
    first_action, first_state = (int(getattr(s, "start", 0)) for s in (example.action_space, example.observation_space))
    begin, advance = _host(make, observation, first_action, first_state)
    scalar, flag = jax.ShapeDtypeStruct((), np.float32), jax.ShapeDtypeStruct((), np.bool_)

    def draw(key: Key) -> Array:
        return jax.random.randint(key, (), 0, np.iinfo(np.int32).max, jnp.int32)

    def reset(key: Key) -> tuple[Played, Array]:
        seed = draw(key)
        observed = jax.pure_callback(begin, observation, seed, vmap_method="broadcast_all")
        return Played(seed, jnp.zeros(limit, jnp.int32), jnp.int32(0)), observed

    def step(key: Key, state: Played, action: Array) -> tuple[Played, Timestep]:
        fresh = draw(key)
        actions = jnp.asarray(state.actions).at[state.time].set(action)
        # All in one array, as a call takes 15 microseconds more for each. The whole log travels: with less than that
        # the callback would not be a function of its arguments.
        call = jnp.concatenate([jnp.stack([state.seed, state.time, fresh]), actions])
        results = (observation, observation, scalar, flag, flag)
        moved = Timestep(*jax.pure_callback(advance, results, call, vmap_method="broadcast_all"))
        over = moved.terminated | moved.truncated
        return Played(jnp.where(over, fresh, state.seed), actions, jnp.where(over, 0, state.time + 1)), moved

    picture = _artist(make)

    def render(state: Played) -> np.ndarray:
        taken = np.asarray(state.actions)[: int(state.time)] + first_action
        return picture(int(state.seed), taken.tolist())

    num_states = int(getattr(example.observation_space, "n", 0))
    return Environment(example.spec.id, reset, step, observation, num_actions, num_states, limit, render)


def _maker(id: str) -> tuple[Callable[..., Any], int]:
    """What makes an instance, and its limit of steps."""
    try:
        import gymnasium
    except ImportError as error:
        raise UserError(f"environment {id!r} needs gymnasium: pip install gymnasium") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is a newer version: this one was asked for by name
            example: Any = gymnasium.make(id, disable_env_checker=True)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise UserError(_line(f"environment {id!r} cannot be made: {error}")) from error
    except gymnasium.error.Error as error:
        close = ", ".join(difflib.get_close_matches(id, gymnasium.envs.registry, cutoff=0))
        hint = "PACKAGE:ID for one of another package"
        raise UserError(f"gymnasium has no environment {id!r}; the closest are {close} ({hint})") from error
    example.close()
    if any(base.__name__ == "FunctionalJaxEnv" for base in type(example.unwrapped).__mro__):
        raise UserError(f"environment {id!r} is written in JAX, which may not run inside a callback of a JAX program")
    limit = example.spec.max_episode_steps or LONGEST
    return functools.partial(gymnasium.make, example.spec, max_episode_steps=limit), limit


def _spaces(id: str, example: Any) -> tuple[jax.ShapeDtypeStruct, int]:
    """Shape and type of an observation, and the number of actions."""
    from gymnasium.spaces import Box, Discrete

    acts, seen = example.action_space, example.observation_space
    if not isinstance(acts, Discrete):
        raise UserError(_line(f"the actions of {id!r} are {acts}; the learners are for discrete actions, Discrete(n)"))
    if not isinstance(seen, Box | Discrete):
        raise UserError(_line(f"the observations of {id!r} are {seen}; allowed are a Box and Discrete(n)"))
    dtype = np.int32 if isinstance(seen, Discrete) else NARROW.get(str(seen.dtype), seen.dtype)
    return jax.ShapeDtypeStruct(seen.shape, dtype), int(acts.n)


def _host(
    make: Callable[..., Any], observation: jax.ShapeDtypeStruct, first_action: int, first_state: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The callbacks that begin episodes and take a step of each, for arguments with any leading axes.

    Functions of their arguments: the instances kept only save taking the same actions again. Neither calls JAX, as
    the threads it would compute with may be waiting for the callback.
    """
    # By row of the batch too, so that members in the same state have an instance each.
    live: dict[tuple[int, int, bytes], Any] = {}  # the least recently used first
    lock = threading.Lock()  # each device of a mesh calls from a thread of its own

    def keep(key: tuple[int, int, bytes], instance: Any, batch: int) -> None:
        if key in live:
            live.pop(key).close()
        live[key] = instance
        while len(live) > max(KEPT, 2 * batch):
            live.pop(next(iter(live))).close()

    def begin(seed: Any) -> np.ndarray:
        seeds = np.asarray(seed)
        observed = np.empty((seeds.size, *observation.shape), observation.dtype)
        with lock:
            for row, value in enumerate(seeds.ravel().tolist()):
                instance = make()
                observed[row] = instance.reset(seed=value)[0] - first_state
                keep((row, value, b""), instance, seeds.size)
        return observed.reshape((*seeds.shape, *observation.shape))

    def advance(call: Any) -> tuple[np.ndarray, ...]:
        calls = np.asarray(call)
        shape, calls = calls.shape[:-1], calls.reshape(-1, calls.shape[-1])
        observed, successors = np.empty((2, len(calls), *observation.shape), observation.dtype)
        rewards, (terminated, truncated) = np.empty(len(calls), np.float32), np.empty((2, len(calls)), np.bool_)
        with lock:
            for row, ((seed, time, fresh), log) in enumerate(zip(calls[:, :3].tolist(), calls[:, 3:], strict=True)):
                instance = live.pop((row, seed, log[:time].tobytes()), None)
                if instance is None:
                    instance = make()
                    _replay(instance, seed, (log[:time] + first_action).tolist())
                after, rewards[row], done, cut, _ = instance.step(int(log[time]) + first_action)
                successors[row] = observed[row] = after - first_state
                terminated[row], truncated[row] = done, cut and not done
                key = (row, seed, log[: time + 1].tobytes())
                if done or cut:
                    observed[row] = instance.reset(seed=fresh)[0] - first_state
                    key = (row, fresh, b"")
                keep(key, instance, len(calls))
        flat = (observed, successors, rewards, terminated, truncated)
        return tuple(x.reshape((*shape, *x.shape[1:])) for x in flat)

    return begin, advance


def _replay(instance: Any, seed: int, actions: list[int]) -> Any:
    """The observation after the actions."""
    observation, _ = instance.reset(seed=seed)
    for action in actions:
        observation, *_ = instance.step(action)
    return observation


def _artist(make: Callable[..., Any]) -> Callable[[int, list[int]], np.ndarray]:
    """What draws the state after some actions. Its instance is kept: the frames of an episode cost one step each."""
    from gymnasium.error import DependencyNotInstalled
    from PIL import Image, ImageDraw

    kept: dict[str, Any] = {"instance": None, "seed": None, "actions": [], "observation": None}

    def go(seed: int, actions: list[int]) -> Any:
        """The instance, brought to the state."""
        done = len(kept["actions"])
        if kept["seed"] != seed or actions[:done] != kept["actions"]:
            kept["observation"], _ = kept["instance"].reset(seed=seed)
            done = 0
        for action in actions[done:]:
            kept["observation"], *_ = kept["instance"].step(action)
        kept["seed"], kept["actions"] = seed, actions
        return kept["instance"]

    def picture(seed: int, actions: list[int]) -> np.ndarray:
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # pygame opens a sound card, complains where there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # ... and a screen
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pygame, about its own imports
            if not kept["instance"]:
                instance = make()
                if "rgb_array" in instance.metadata.get("render_modes", ()):
                    with contextlib.suppress(DependencyNotInstalled):
                        instance = make(render_mode="rgb_array")
                kept["instance"] = instance
            if go(seed, actions).render_mode == "rgb_array":
                try:
                    return np.asarray(kept["instance"].render(), np.uint8)
                except DependencyNotInstalled:
                    kept.update(instance=make(), seed=None)
                    go(seed, actions)
        written = f"{kept['instance'].spec.id}\nstep {len(actions)}\n{kept['observation']}"
        image = Image.new("RGB", (480, 320), "white")
        ImageDraw.Draw(image).multiline_text((16, 16), written, fill="black")
        return np.asarray(image)

    return picture


def _line(text: str) -> str:
    return " ".join(text.split())
