"""The run directory: one run at a time, whole lines, whole files, and clear words about a file system that will not."""

import errno
import json

import numpy as np
import pytest

from dlfx.training import figures, progress, rundir
from dlfx.types import UserError


@pytest.fixture
def opened(tmp_path):
    run = rundir.open_run(tmp_path, {"seed": "1"})
    yield run
    run.close()


def test_lines_are_whole_and_cut_at_the_step_a_run_resumes_from(opened):
    for step in (1, 2, 3):
        opened.log(step, "train", {"loss": 1.0 / step})
    with open(opened.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "spl')  # a kill in the middle of a line
    assert [row["step"] for row in rundir.read_metrics(opened.path)] == [1, 2, 3]
    opened.truncate(2)
    opened.log(3, "train", {"loss": 7.0})
    rows = [json.loads(line) for line in (opened.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [1.0, 0.5, 7.0]


def test_values_that_json_cannot_hold_become_null(opened):
    opened.log(1, "test", {"loss": float("nan"), "return": float("-inf")})
    assert json.loads((opened.path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "split": "test",
        "loss": None,
        "return": None,
    }


def test_a_directory_is_of_one_run_at_a_time(opened):
    with pytest.raises(UserError, match="another run is at work"):
        rundir.open_run(opened.path, {"seed": "1"})
    opened.close()
    rundir.open_run(opened.path, {"seed": "1"}).close()


def test_flags_that_contradict_are_named_and_the_directory_stays_free(opened):
    opened.close()
    with pytest.raises(UserError, match="--seed .there '1', now '2'."):
        rundir.open_run(opened.path, {"seed": "2", "keep": "3"}, frozenset({"keep"}))
    rundir.open_run(opened.path, {"seed": "1", "keep": "3"}, frozenset({"keep"})).close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk under .* is full; nothing saved so far is lost"),
        (ValueError("RESOURCE_EXHAUSTED: writing: No space left on device"), "disk under .* is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be used: Permission denied"),
    ],
)
def test_errors_of_the_file_system_are_put_in_words(tmp_path, error, said):
    with pytest.raises(UserError, match=said), rundir.explain_os_errors(tmp_path):
        raise error


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="^unrelated$"), rundir.explain_os_errors(tmp_path):
        raise ValueError("unrelated")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    rundir.write_atomically(tmp_path / "a", "old")
    rundir.write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_spread_and_scalars_of_a_population():
    values = np.array([1.0, 2.0, 6.0])
    assert rundir.spread(values) == {"mean": 3.0, "std": pytest.approx(np.std(values, ddof=1)), "values": [1, 2, 6]}
    assert rundir.spread(np.float32(2)) == 2.0
    flat = rundir.scalars({"loss": values}, (4, 5, 6))
    assert flat == {"loss": 3.0, "loss/std": pytest.approx(7**0.5), "loss/seed4": 1, "loss/seed5": 2, "loss/seed6": 6}


def test_a_population_is_drawn_with_its_band(tmp_path):
    rows = [
        {"step": s, "split": "test", **rundir.scalars({"loss": np.array([1.0, 2.0]) / s}, (0, 1))} for s in (1, 2, 3)
    ]
    drawn = []
    figures_save = figures.save
    try:
        figures.save = lambda figure, path: drawn.append(figure)
        figures.curves(tmp_path / "curves.png", rows, "a run")
    finally:
        figures.save = figures_save
    (axes,) = drawn[0].axes
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1.5, 0.75, 0.5])
    np.testing.assert_allclose((band[:, 1].min(), band[:, 1].max()), (0.5 - 0.5**0.5 / 3, 1.5 + 0.5**0.5), rtol=1e-6)
    assert len(axes.lines) == 3


def test_progress_is_lines_off_a_terminal_and_a_bar_on_one(capsys):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    plain = progress.progress(0, 10, every_seconds=0.0)
    for step in (2, 6, 10):
        plain.update(step, {"loss": 0.5})
    out = capsys.readouterr().out
    assert out.count("\n") == 2 and "step 6/10" in out and "steps/s" in out and "s left" in out and "loss 0.5" in out
    screen = Terminal()
    bar = progress.progress(4, 10, stream=screen)
    bar.update(10, {"loss": 0.5})
    bar.say("a word")
    bar.close()
    assert "10/10" in screen.getvalue() and "a word" in screen.getvalue() and "\r" in screen.getvalue()


def test_tensorboard_events_hold_every_line_also_after_a_resume(opened):
    from tensorboardX.proto.event_pb2 import Event

    opened.truncate(0)
    for step in (1, 2, 3):
        opened.log(step, "train", {"loss": 1.0 / step})
    opened.truncate(2)
    opened.log(3, "test", {"loss": 9.0})
    opened.close()
    (file,) = (opened.path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    assert events[0].file_version == "brain.Event:2"
    values = [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in events[1:]]
    assert values == [(1, "train/loss", 1.0), (2, "train/loss", 0.5), (3, "test/loss", 9.0)]
