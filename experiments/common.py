"""What every experiment shares: the flags of a run, its directory, its summary, and one clear line for a mistake."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from dlfx.training import allocation, checkpoints, figures, loop, mesh, processes, rundir
from dlfx.training.loop import Result, Schedule, Splits, Stopped
from dlfx.training.progress import Clock
from dlfx.types import Stream, UserError, unknown
from experiments import STARTED

ROOT = Path(__file__).resolve().parent.parent
FLAGS = flags.FLAGS
GROUPS: dict[str, list[str]] = {}  # heading of --help to the names of its flags
INT_MAX = 2**31 - 1

# Flags that do not change what a run computes: they may differ between its lives.
FREE = frozenset(["workdir", "data_dir", "keep", "checkpoint_every", "debug_nans", "profile", "eval_only"])
LAUNCH = ("coordinator", "num_processes", "process_id")  # of one process, and so not part of flags.txt


@contextlib.contextmanager
def group(heading: str) -> Iterator[None]:
    """Puts the flags defined inside under a heading of `--help`."""
    before = set(FLAGS)
    yield
    GROUPS.setdefault(heading, []).extend(name for name in FLAGS if name not in before)


with group("Run"):
    flags.DEFINE_string("workdir", "", "the run directory; by default one under runs/ named after the flags")
    flags.DEFINE_integer("seed", 0, "seed of weights, data order and augmentation", lower_bound=0, upper_bound=INT_MAX)
    flags.DEFINE_integer("num_seeds", 1, "train the seeds seed, seed + 1, ... at once, in one program", lower_bound=1)
    flags.DEFINE_integer("steps_per_call", 1, "training steps in one compiled call", lower_bound=1)
    flags.DEFINE_integer("log_every", 50, "steps between lines of training metrics", lower_bound=1)
    flags.DEFINE_integer("eval_every", 500, "steps between evaluations", lower_bound=1)
    flags.DEFINE_string("monitor", "", "the metric that says which checkpoint is best, such as test_accuracy")
    flags.DEFINE_integer(
        "patience", 0, "stop after so many evaluations without a better --monitor; 0: never", lower_bound=0
    )
    flags.DEFINE_integer("checkpoint_every", 500, "steps between checkpoints", lower_bound=1)
    flags.DEFINE_integer("keep", 2, "how many of the newest checkpoints to keep, besides the best", lower_bound=1)
    flags.DEFINE_bool("debug_nans", False, "stop at the first operation that gives NaN, and name it (slow)")
    flags.DEFINE_bool("profile", False, "write a profiler's trace to WORKDIR/profile and print where the time went")
with group("Devices"):
    flags.DEFINE_enum("parallel", "jit", list(mesh.PROGRAMS), "how to use several devices")
    flags.DEFINE_string(
        "mesh", "", "data:N,model:M lays N x M devices out in two axes; some models are cut along the second"
    )
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float64"], "of the computation")
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, for several processes")
    flags.DEFINE_integer(
        "num_processes", 0, "how many processes take part; 0: one, or what the cluster says", lower_bound=0
    )
    flags.DEFINE_integer("process_id", -1, "which of them this is, from 0", lower_bound=-1)


@dataclasses.dataclass
class Session:
    """One invocation of an experiment, from its flags to its summary."""

    experiment: str
    clock: Clock
    seeds: tuple[int, ...]
    mesh: Any
    dtype: Any  # of activations
    param_dtype: Any
    path: Path
    flags: dict[str, str]
    run: rundir.RunDirectory | None = None  # open on process 0
    store: checkpoints.Checkpoints | None = None

    @property
    def axis_name(self) -> str | None:
        """The axis that a learner averages over: under pmap alone."""
        return mesh.AXIS if FLAGS.parallel == "pmap" else None


def launch(main: Callable[[Any], None]) -> None:
    """Parses the flags and runs an experiment's `main`, with one line instead of a traceback for a user's mistake."""

    def guarded(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
            main(argv)
        except UserError as error:
            _leave(f"error: {error}", 2)
        except Stopped as stopped:
            _leave(str(stopped), stopped.exit_code)
        except KeyboardInterrupt:
            _leave("interrupted", 130)
        except FloatingPointError as error:
            ours = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}dlfx{os.sep}" in f.filename]
            where = f" at {os.path.relpath(ours[-1].filename, ROOT)}:{ours[-1].lineno}" if ours else ""
            _leave(f"error: --debug_nans: {str(error).splitlines()[0]}{where}", 2)

    logging.set_verbosity(logging.WARNING)
    app.run(guarded, flags_parser=_parse)


def _leave(message: str, code: int) -> None:
    if processes.is_main():
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _parse(argv: list[str]) -> list[str]:
    if {"--help", "-h", "-help", "--helpshort"} & set(argv[1:]):
        print(_help())
        sys.exit(0)
    for argument in argv[1:]:
        name, _, path = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "flagfile" and path and not os.path.isfile(os.path.expanduser(path)):
            recipes = sorted(
                os.path.relpath(p, Path.cwd()) for p in (ROOT / "experiments" / "flagfiles").rglob("*.flags")
            )
            _leave(f"error: {unknown('recipe', path, recipes)}", 2)
    try:
        return FLAGS(argv, known_only=False)
    except flags.Error as error:
        _leave(f"error: {str(error).splitlines()[0]} (--help lists the flags)", 2)
        raise


def _help() -> str:
    doc = (sys.modules["__main__"].__doc__ or "").strip()
    lines = [doc, "", "Flags, with their defaults:"]
    for heading, names in GROUPS.items():
        lines += ["", f"{heading}:"]
        for name in names:
            flag = FLAGS[name]
            default = str(flag.default).lower() if isinstance(flag.default, bool) else flag.default_as_str or ""
            default = default.strip("'") or "''"
            choices = f" ({'|'.join(flag.parser.enum_values)})" if hasattr(flag.parser, "enum_values") else ""
            lines.append(f"  --{name}={default}".ljust(34) + f" {flag.help}{choices}")
    return "\n".join(lines)


def all_flags() -> dict[str, str]:
    """Every flag of this experiment, name to text, as `flags.txt` holds them."""
    values = {name: FLAGS[name].value for listed in GROUPS.values() for name in listed if name not in LAUNCH}

    def text(value: Any) -> str:
        if isinstance(value, list):
            return ",".join(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {name: text(value) for name, value in values.items()}


@contextlib.contextmanager
def begin(experiment: str, label: str) -> Iterator[Session]:
    """Sets up devices, precision and the place of the run, and closes its directory in the end. Nothing is written yet.

    Args:
      experiment: its name.
      label: what the default work directory is called after, such as `lenet5-digits`.
    """
    clock = Clock(STARTED)
    clock.seconds["imports"] = time.perf_counter() - STARTED
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # a second start takes the compiled programs of the first
        jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    allocation.keep_freed_memory()
    with clock.phase("devices"):
        if FLAGS.precision == "float64":
            jax.config.update("jax_enable_x64", True)
        processes.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
        devices = _mesh()
    values = all_flags()
    if FLAGS.workdir:
        path = Path(FLAGS.workdir).expanduser().absolute()
    else:
        told = {name: value for name, value in values.items() if name not in FREE}
        name = f"{label}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]}"
        path = ROOT / "runs" / experiment / name
    values["workdir"] = str(path)
    seeds = tuple(range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds))
    dtype = jax.numpy.dtype(FLAGS.precision)
    param_dtype = jax.numpy.promote_types(dtype, "float32")
    session = Session(experiment, clock, seeds, devices, dtype, param_dtype, path, values)
    try:
        # As a context, not by config.update: in jax 0.10 the first function that suspends the check ends it for good.
        with jax.debug_nans(True) if FLAGS.debug_nans else contextlib.nullcontext():
            yield session
    finally:
        if session.store:
            session.store.close()
        if session.run:
            session.run.close()


def _mesh() -> jax.sharding.Mesh:
    """The devices as `--mesh` wants them."""
    if not FLAGS.mesh:
        return mesh.make_mesh()
    form = re.fullmatch(r"data:([1-9]\d*),model:([1-9]\d*)", FLAGS.mesh)
    if not form:
        raise UserError(f"--mesh={FLAGS.mesh} is not of the form data:4,model:2")
    data, model = map(int, form.groups())
    if data * model != jax.device_count():
        raise UserError(f"--mesh={FLAGS.mesh} is of {data * model} devices; there are {jax.device_count()}")
    if model > 1 and FLAGS.parallel == "pmap":
        raise UserError(f"--mesh={FLAGS.mesh} needs --parallel=jit; pmap knows one axis")
    return mesh.make_mesh(model=model)


def open_directory(session: Session) -> bool:
    """Opens the run directory on process 0; False, after a word to the user, if it holds the finished run already."""

    def work() -> str:
        session.run = rundir.open_run(session.path, session.flags, FREE)
        done = rundir.summary_of(session.path)
        if done is None:
            session.store = checkpoints.open_checkpoints(session.path / "checkpoints", FLAGS.keep, say=_say)
            _say(f"work directory: {session.path}")
        return "" if done is None else json.dumps(done["metrics"])

    answer = processes.on_main(work)
    if answer and processes.is_main():
        print(f"{session.path} holds this run, finished: {words(json.loads(answer))}")
    return not answer


def _say(line: str) -> None:
    print(line, flush=True)


def words(metrics: dict[str, Any]) -> str:
    """Metrics, as `spread` gives them, in one line."""
    texts = {n: f"{v['mean']:.4f} +- {v['std']:.4f}" if isinstance(v, dict) else f"{v:.4f}" for n, v in metrics.items()}
    return "  ".join(f"{name} {text}" for name, text in texts.items())


def schedule(steps: int, monitor: str) -> Schedule:
    """When things happen, from the flags."""
    return Schedule(
        steps=steps,
        steps_per_call=FLAGS.steps_per_call,
        log_every=FLAGS.log_every,
        eval_every=FLAGS.eval_every,
        checkpoint_every=FLAGS.checkpoint_every,
        monitor=FLAGS.monitor or monitor,
        patience=FLAGS.patience,
    )


def beginning_with(program: mesh.Program, variables: Any) -> mesh.Program:
    """The program with variables in its initial state, the same for all members; those that are None stay as drawn."""

    def init() -> Any:
        state = program.host(program.init())
        chosen = jax.tree.map(
            lambda new, drawn: drawn if new is None else np.broadcast_to(np.asarray(new, drawn.dtype), drawn.shape),
            variables,
            {"params": state.params, **state.extra},
            is_leaf=lambda x: x is None,
        )
        return program.restore(state._replace(params=chosen.pop("params"), extra=chosen))

    return program._replace(init=init)


def train(
    session: Session, program: mesh.Program, stream: Stream, when: Schedule, evaluate: Callable[[Any], Splits]
) -> Result:
    """Runs the loop in the session's directory, with a profiler's trace if `--profile`."""
    trace = session.path / "profile" if FLAGS.profile and session.run else None
    return loop.train(program, stream, session.seeds, when, session.run, session.store, evaluate, session.clock, trace)


def finish(
    session: Session,
    result: Result,
    params: Any,
    draw: Callable[[Path], None],
    about: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Draws the figures, writes `summary.json` and tells the user what came out.

    Args:
      session: of this run.
      result: of its training.
      params: the trained parameters as NumPy arrays.
      draw: draws the experiment's own figures into a directory.
      about: what else the summary shall tell, such as which data it was.
    """
    if session.run is None:
        return
    with session.clock.phase("figures"), rundir.explain_os_errors(session.path):
        pictures = importlib.util.find_spec("matplotlib") is not None
        if pictures:
            title = f"{session.experiment}: {session.path.name}"
            figures.curves(session.path / "figures" / "curves.png", rundir.read_metrics(session.path), title)
            draw(session.path / "figures")
    clock = session.clock
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) // len(session.seeds)
    session.run.finish(
        {
            "experiment": session.experiment,
            "flags": session.flags,
            "seed": FLAGS.seed,
            "steps": result.step,
            "metrics": result.metrics,
            "best": result.best["metrics"] | {"step": result.best["step"]},
            "params": count,
            "params_sha256": checkpoints.digest(params),
            "wall_seconds": result.wall_seconds,
            "compile_seconds": clock.compile_seconds,
            "steps_per_second": result.step / max(result.seconds, 1e-9),
            "devices": [str(device) for device in session.mesh.devices.flat],
            "versions": rundir.versions(),
            "git_commit": rundir.git_commit(ROOT),
            **about,
        }
    )
    print(f"{words(result.metrics)}  after {result.step} steps, {result.seconds:.1f} s of training")
    print(f"pictures: {session.path / 'figures' if pictures else 'none, matplotlib is not installed'}")
    if FLAGS.profile:
        print(f"where the time went (trace: {session.path / 'profile'}):\n{clock.table()}")
