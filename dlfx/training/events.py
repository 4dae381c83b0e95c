"""TensorBoard events without TensorFlow, written as they come, by no thread that could outlive the run.

tensorboardX has the file format; its SummaryWriter is left alone, as its thread dies with a traceback on a full disk.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FLUSH_SECONDS = 5.0


class Events(NamedTuple):
    """An open events file: `add` takes (step, split, scalars), `close` ends it."""

    add: Callable[[int, str, Mapping[str, float]], None]
    close: Callable[[], None]


NO_EVENTS = Events(lambda step, split, scalars: None, lambda: None)


def open_events(directory: Path, history: Sequence[Mapping[str, Any]]) -> Events:
    """Writes the history of a run into a new events file, in place of those of its earlier lives, and goes on there.

    Args:
      directory: of the events, made if absent.
      history: the lines of `metrics.jsonl` so far.

    Returns:
      The open file; one that does nothing where tensorboardX is not installed.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar
    except ImportError:
        return NO_EVENTS
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("events.out.tfevents.*"):
        old.unlink()
    writer = RecordWriter(str(directory / f"events.out.tfevents.{int(time.time()):010d}.dlfx"))
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    flushed = time.monotonic()

    def add(step: int, split: str, scalars: Mapping[str, float]) -> None:
        nonlocal flushed
        for name, value in scalars.items():
            summary = scalar(f"{split}/{name}", value)
            writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        if time.monotonic() - flushed > FLUSH_SECONDS:
            writer.flush()
            flushed = time.monotonic()

    for row in history:
        numbers = {name: value for name, value in row.items() if name not in ("step", "split") and value is not None}
        add(row["step"], row["split"], numbers)
    return Events(add, writer.close)
