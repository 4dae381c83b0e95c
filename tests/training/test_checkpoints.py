"""Checkpoints: what is kept, what comes back to the bit, and what is passed over."""

from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import pytest

from dlfx.training import checkpoints
from dlfx.types import UserError


class State(NamedTuple):
    params: Any
    step: Any
    key: Any


def make(i: int) -> State:
    rng = np.random.default_rng(i)
    params = {"w": rng.normal(size=(5, 3)).astype(np.float32), "half": np.full(4, i, ml_dtypes.bfloat16)}
    return State(params, np.asarray(i, np.int32), np.array([0, i], np.uint32))


@pytest.fixture
def store(tmp_path):
    store = checkpoints.open_checkpoints(tmp_path / "checkpoints", 2)
    yield store
    store.close()


def steps(tmp_path):
    return sorted(int(entry.name) for entry in (tmp_path / "checkpoints").iterdir())


def test_the_newest_comes_back_to_the_bit(store):
    info = {"best": {"step": 1, "score": 0.1 + 0.2}, "bad": 3}
    for i in (1, 2, 3):
        store.save(i, make(i), info, None)
    step, state, said = store.restore(make(0))
    assert step == 3 and said == info
    jax.tree.map(np.testing.assert_array_equal, state, make(3))
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, make(3))


def test_the_newest_few_and_the_best_are_kept(store, tmp_path):
    for i, score in ((1, 0.2), (2, 0.9), (3, 0.5), (4, None), (5, 0.6)):
        store.save(i, make(i), {}, score)
    assert steps(tmp_path) == [2, 4, 5]


def test_nothing_is_nothing(store):
    assert store.restore(make(0)) is None


def test_every_file_of_a_checkpoint_is_covered(store, tmp_path, capsys):
    """Whichever file is cut short or changed, the damage is noticed, or it did not matter: never another state."""
    store.save(1, make(1), {}, None)
    count = len(_files(store, tmp_path, 2))
    assert count > 5
    for number in range(count):
        for damage in (
            lambda b: b[: len(b) // 2],
            lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :],
        ):
            files = _files(store, tmp_path, 2)  # orbax does not always write the same number
            file = files[number % len(files)]
            if file.stat().st_size:
                file.write_bytes(damage(file.read_bytes()))
            step, state, _ = store.restore(make(0))
            jax.tree.map(np.testing.assert_array_equal, state, make(step))
    assert "is damaged" in capsys.readouterr().out


def _files(store, tmp_path, step):
    if not (tmp_path / "checkpoints" / str(step)).exists():
        store.save(step, make(step), {}, None)
    return sorted(file for file in (tmp_path / "checkpoints" / str(step)).rglob("*") if file.is_file())


def test_a_checkpoint_without_its_seal_was_cut_off(store, tmp_path, capsys):
    for i in (1, 2):
        store.save(i, make(i), {}, None)
    (tmp_path / "checkpoints" / "2" / "seal.json").unlink()
    assert store.restore(make(0))[0] == 1
    assert "checkpoint 2 is damaged (it was cut off while it was written)" in capsys.readouterr().out


def test_a_half_written_checkpoint_is_swept_away(tmp_path):
    leftover = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    (leftover / "state").mkdir(parents=True)
    store = checkpoints.open_checkpoints(tmp_path / "checkpoints", 2)
    assert store.restore(make(0)) is None and not leftover.exists()
    store.close()


def test_a_full_disk_is_told_before_anything_is_written(store, tmp_path, monkeypatch):
    store.save(1, make(1), {}, None)
    usage = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="No space left"):
        store.save(2, make(2), {}, None)
    assert steps(tmp_path) == [1]


def test_arrays_can_be_read_without_their_program(store, tmp_path):
    store.save(1, make(1), {}, None)
    found = checkpoints.load_state(tmp_path / "checkpoints")
    assert set(found) == {"params/w", "params/half", "step", "key"}
    np.testing.assert_array_equal(found["params/w"], make(1).params["w"])
    with pytest.raises(UserError, match=r"no checkpoint 9 .* it has \[1\]"):
        checkpoints.load_state(tmp_path / "checkpoints", 9)
    with pytest.raises(UserError, match="it has none"):
        checkpoints.load_state(tmp_path / "nowhere")
