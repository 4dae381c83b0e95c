"""What a person sees while a run works: a bar on a terminal, plain lines elsewhere; and where the time went."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TextIO

import jax


class Progress(NamedTuple):
    """Attributes:
    update: (step, metrics): moves on.
    say: one line for a person, above the bar.
    close: ends the bar.
    """

    update: Callable[[int, Mapping[str, float]], None]
    say: Callable[[str], None]
    close: Callable[[], None]


SILENT = Progress(lambda step, metrics: None, lambda line: None, lambda: None)


def _text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def progress(start: int, steps: int, every_seconds: float = 5.0, stream: TextIO | None = None) -> Progress:
    """Shows step, steps per second, time left and metrics: a bar on a terminal, a line every few seconds elsewhere.

    Args:
      start: the step that the run begins or resumes at.
      steps: the step at which it ends.
      every_seconds: between plain lines.
      stream: where to; standard output if None.
    """
    stream = stream or sys.stdout
    if stream.isatty():
        from tqdm import tqdm

        bar = tqdm(total=steps, initial=start, unit="step", file=stream, dynamic_ncols=True, mininterval=0.2)

        def advance(step: int, metrics: Mapping[str, float]) -> None:
            bar.set_postfix_str(_text(metrics), refresh=False)
            bar.update(step - bar.n)

        return Progress(advance, lambda line: bar.write(line, file=stream), bar.close)

    began = last = time.perf_counter()
    first = start

    def line(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal last, began, first
        now = time.perf_counter()
        if first == start:  # the first call compiles; rates are counted after it
            began, first = now, step
        elif now - last >= every_seconds or step >= steps:
            rate = (step - first) / (now - began)
            left = f"{(steps - step) / rate:.0f} s left" if rate else ""
            print(f"step {step}/{steps}  {rate:.1f} steps/s  {left}  {_text(metrics)}", file=stream, flush=True)
            last = now

    return Progress(line, lambda text: print(text, file=stream, flush=True), lambda: None)


class Clock:
    """Adds up where the time of a run goes, by phase; jax itself tells what of it was compilation.

    Args:
      started: `time.perf_counter()` when the program began.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        self.to_first_step = 0.0
        self.seconds: dict[str, float] = {}
        self.compile_seconds = 0.0
        self.compilations = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.compilations += 1
            self.compile_seconds += duration_secs

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what happens inside as `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def elapsed(self) -> float:
        """Seconds since the program began."""
        return time.perf_counter() - self.started

    def first_step(self) -> None:
        """Notes that the first call is done."""
        self.to_first_step = self.elapsed()

    def table(self) -> str:
        """The phases and their seconds, as lines."""
        rows = [f"  {name:<24}{seconds:8.2f} s" for name, seconds in self.seconds.items()]
        rows.append(f"  of which compiling      {self.compile_seconds:8.2f} s in {self.compilations} programs")
        rows.append(f"  start to first step     {self.to_first_step:8.2f} s")
        return "\n".join(rows)
