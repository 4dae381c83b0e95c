"""The one loop: compiles a learner, runs it to its last step, logs, evaluates, checkpoints, resumes and stops well.

The calls of a run lie on a grid fixed by `steps_per_call` alone, [0, K), [K, 2K), ..., and everything else happens at
the end of a call. A run that was killed goes on from a point of the same grid, with the same programs on the same
batches, and so ends in the same bits.
"""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlfx.training import processes
from dlfx.training.checkpoints import Checkpoints, leaf_names
from dlfx.training.mesh import Program
from dlfx.training.progress import SILENT, Clock, Progress, progress
from dlfx.training.rundir import RunDirectory, explain_os_errors, scalars, spread
from dlfx.types import Batch, Stream, UserError, unknown

TRACED_STEPS = 50  # in one call; a trace holds every operation of every step

LOWER = ("loss", "error", "distance")  # how the names of metrics end that shall be small

Splits = Mapping[str, Mapping[str, np.ndarray]]  # split to metric to scalar, or to [N] for a population


class Schedule(NamedTuple):
    """When things happen, in steps; each at the end of the first call that reaches the next multiple.

    Attributes:
      steps: the last step.
      steps_per_call: K, the steps of one compiled call.
      log_every: a line of training metrics, the means over the call.
      eval_every: an evaluation; one follows the last step in any case.
      checkpoint_every: a checkpoint; one follows the last step in any case.
      monitor: the metric that says which checkpoint is best, `test_accuracy`; lower is better where its name ends in
        one of `LOWER`.
      patience: stop after so many evaluations without a better one; 0 never stops.
    """

    steps: int
    steps_per_call: int = 1
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    monitor: str = "test_accuracy"
    patience: int = 0


class Result(NamedTuple):
    """What a run came to.

    Attributes:
      state: the final state, replicated.
      arrays: the same as NumPy arrays.
      step: the last step.
      metrics: metric of the last step to value, or to `{"mean", "std", "values"}`.
      best: the same of the best evaluation, with its `step`.
      seconds: of training alone, over all lives of the run, without compilation.
      wall_seconds: of everything, over all lives of the run as far as they were saved.
    """

    state: Any
    arrays: Any
    step: int
    metrics: dict[str, Any]
    best: dict[str, Any]
    seconds: float
    wall_seconds: float


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step}, which is saved; the same command goes on"
        )
        self.exit_code = 128 + number


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The SIGTERM and Ctrl-C received so far; a second one is no longer waited for."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(
    program: Program,
    stream: Stream,
    seeds: tuple[int, ...],
    schedule: Schedule,
    run: RunDirectory | None,
    checkpoints: Checkpoints | None,
    evaluate: Callable[[Any], Splits],
    clock: Clock,
    trace: Path | None = None,
) -> Result:
    """Runs a program from its newest checkpoint, or from the start, to its last step.

    Args:
      program: of the learner.
      stream: its batches.
      seeds: of the members; one for a single run.
      schedule: when things happen.
      run: the open run directory on process 0, None on the others.
      checkpoints: likewise.
      evaluate: the viewed state to the metrics of each split.
      clock: counts where the time goes.
      trace: a directory for a profiler's trace of a few calls after the first.

    Returns:
      The result; the directory then holds its last checkpoint.

    Raises:
      UserError: if the loss stops being finite, or the disk is full.
      Stopped: after a signal.
    """
    steps, length = schedule.steps, min(schedule.steps_per_call, schedule.steps)
    with clock.phase("initial state"):
        begin, state, info = _begin(program, checkpoints)
        if run:
            run.truncate(begin)
    show = progress(begin, steps) if processes.is_main() else SILENT
    if begin:
        show.say(f"resuming after step {begin}")
    if trace and length > TRACED_STEPS:
        show.say(
            f"no profiler's trace: {length} steps a call fill the memory; use --steps_per_call={TRACED_STEPS} at most"
        )
        trace = None

    nothing = not jax.tree.leaves(stream.host(seeds[0], 0))  # a learner that makes its own experience

    def load(call: int) -> Batch:
        if nothing:
            return ()
        numbers = range(call * length, min(call * length + length, steps))
        if not program.population:
            return _stack([stream.host(seeds[0], i) for i in numbers])
        return _stack([_stack([stream.host(seed, i) for seed in seeds]) for i in numbers])

    def record(first: int, end: int, metrics: Any) -> None:
        """Fetches the metrics of a call: where another call was started since, that one runs meanwhile."""
        values = jax.tree.map(np.asarray, metrics)
        if not np.isfinite(values.get("loss", 0.0)).all():
            bad = first + int(np.flatnonzero(~np.isfinite(values["loss"]).reshape(end - first, -1).all(-1))[0])
            raise _not_finite(f"the loss is not finite at step {bad}", bad_leaves(program.host(state)), run)
        means = {name: value.mean(0) for name, value in values.items()}
        if run and _reached(schedule.log_every, first, end):
            run.log(end, "train", scalars(means, seeds))
        show.update(end, {name: float(np.mean(value)) for name, value in means.items()})

    def save(end: int) -> None:
        if not (checkpoints and run):
            return
        arrays = program.host(state)
        if bad := bad_leaves(arrays):
            raise _not_finite(f"the state is not finite after step {end}", bad, run)
        best = info["best"]
        score = best["score"] if best and best["step"] == end else None
        with explain_os_errors(run.path):
            checkpoints.save(end, arrays, {**info, **times()}, score)

    def times() -> dict[str, float]:
        return {"seconds": info["seconds"] + watch.seconds(), "wall_seconds": info["wall_seconds"] + clock.elapsed()}

    watch = Stopwatch(clock)
    pending: tuple[int, int, Any] | None = None
    end, stop = begin, info["stopped"]
    # The last call may be a short one: then the last step is on no multiple, and must not be gone through again.
    calls = range(0) if stop or begin >= steps else range(begin // length, -(-steps // length))
    with _signals() as received, contextlib.closing(show), contextlib.ExitStack() as profiling:
        batches = iter(stream.prefetch(load, calls))
        for call in calls:
            number, first, end = call - calls.start, call * length, min(call * length + length, steps)
            if trace and number == 1:
                profiling.enter_context(jax.profiler.trace(trace))
            with clock.phase("training" if number else "first call"):
                state, metrics = program.step(state, program.put(next(batches)), end - first)
                if pending:
                    record(*pending)
                pending = (first, end, metrics)
                due = _reached(schedule.eval_every, first, end) or end == steps
                voting = jax.process_count() == 1 or due or _reached(schedule.log_every, first, end)
                halt = voting and processes.any_process(bool(received))
                keep = _reached(schedule.checkpoint_every, first, end) or end == steps or halt
                if number == 0 or due or keep:
                    record(*pending)
                    pending = None
            if number == 5:
                profiling.close()
            if number == 0:
                clock.first_step()
            if due:
                with watch.pause(), clock.phase("evaluation"):
                    splits = evaluate(program.view(state))
                stop = _judge(splits, end, schedule, info, seeds, run, show)
            if keep or stop:
                with watch.pause(), clock.phase("checkpoints"):
                    save(end)
            if stop:
                show.say(f"stopping early at step {end}: {schedule.monitor} was best at step {info['best']['step']}")
                break
            if halt and end < steps:
                raise Stopped(received[0] if received else signal.SIGTERM, end)
    return Result(program.view(state), program.host(state), end, info["last"], info["best"], **times())


class Stopwatch:
    """The seconds that training takes: compilation and what is paused for do not count."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began, self._aside = clock, time.perf_counter() - clock.compile_seconds, 0.0

    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._clock.compile_seconds - self._began - self._aside

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out what happens inside."""
        before = self.seconds()
        try:
            yield
        finally:
            self._aside += self.seconds() - before


def _begin(program: Program, checkpoints: Checkpoints | None) -> tuple[int, Any, dict[str, Any]]:
    """The step, state and host-side facts that a run begins with: those of its newest checkpoint, or fresh ones."""
    found: list[Any] = []

    def read() -> str:
        restored = checkpoints.restore(program.template) if checkpoints else None
        if restored is None:
            return ""
        found.append(restored[1])
        return json.dumps([restored[0], restored[2]])

    answer = processes.on_main(read)
    if not answer:
        return (
            0,
            program.init(),
            {"best": None, "last": {}, "bad": 0, "stopped": False, "seconds": 0.0, "wall_seconds": 0.0},
        )
    step, info = json.loads(answer)
    arrays = found[0] if found else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), program.template)
    return step, program.restore(processes.broadcast(arrays)), info


def _judge(
    splits: Splits,
    step: int,
    schedule: Schedule,
    info: dict[str, Any],
    seeds: tuple[int, ...],
    run: RunDirectory | None,
    show: Progress,
) -> bool:
    """Logs an evaluation and notes in `info` whether it is the best; whether patience has run out."""
    flat = {f"{split}_{name}": value for split, metrics in splits.items() for name, value in metrics.items()}
    if schedule.monitor not in flat:
        raise unknown("metric to watch", schedule.monitor, flat)
    for split, metrics in splits.items():
        if run:
            run.log(step, split, scalars(metrics, seeds))
    show.say(f"step {step}: " + "  ".join(f"{name} {float(np.mean(value)):.4g}" for name, value in flat.items()))
    info["last"] = {name: spread(value) for name, value in flat.items()}
    value = float(np.mean(flat[schedule.monitor]))
    score = -value if schedule.monitor.endswith(LOWER) else value
    if info["best"] is None or score > info["best"]["score"]:
        info["best"], info["bad"] = {"score": score, "step": step, "metrics": info["last"]}, 0
    else:
        info["bad"] += 1
    info["stopped"] = bool(schedule.patience and info["bad"] >= schedule.patience)
    return info["stopped"]


def bad_leaves(arrays: Any) -> list[str]:
    """The paths of the tensors that hold NaN or infinity, in path order."""
    named = zip(leaf_names(arrays), jax.tree.leaves(arrays), strict=True)
    return [n for n, x in named if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact) and not np.isfinite(x).all()]


def _not_finite(what: str, bad: list[str], run: RunDirectory | None) -> UserError:
    saved = sorted(int(entry.name) for entry in (run.path / "checkpoints").glob("[0-9]*")) if run else []
    kept = f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint had been saved"
    first = (
        f"the first tensor of the state that is not finite is {bad[0]}" if bad else "the state itself is still finite"
    )
    return UserError(f"{what}; {first}; {kept}; lower the learning rate, or find the operation with --debug_nans")


def _reached(every: int, first: int, end: int) -> bool:
    return every > 0 and end // every > first // every


def _stack(rows: list[Batch]) -> Batch:
    return jax.tree.map(lambda *x: np.stack(x), *rows)
