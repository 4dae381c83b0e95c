"""The loop: the same run however it is cut, one compilation, and a clear word where it cannot go on."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from dlfx.training import checkpoints, loop, mesh, rundir
from dlfx.training.progress import Clock
from dlfx.types import Learner, Stream, UserError


def evaluate(state):
    error = ((state.params["w"] - np.array([1, -2, 3])) ** 2).sum(-1)
    return {"test": {"loss": np.asarray(error)}}


def go(path, learner, stream, seeds=(0,), program="jit", **schedule):
    schedule = {"steps": 12, "log_every": 2, "eval_every": 4, "checkpoint_every": 4, "monitor": "test_loss"} | schedule
    path.mkdir(exist_ok=True)
    run = rundir.open_run(path, {})
    store = checkpoints.open_checkpoints(path / "checkpoints", 2)
    clock = Clock(0.0)
    try:
        built = mesh.PROGRAMS[program](learner, stream, mesh.make_mesh(), seeds)
        return loop.train(built, stream, seeds, loop.Schedule(**schedule), run, store, evaluate, clock), clock
    finally:
        store.close()
        run.close()


def test_training_learns_and_reports(tmp_path, learner, stream):
    result, _ = go(tmp_path, learner, stream, steps=120, eval_every=20)
    assert result.step == 120 and result.metrics["test_loss"] < 1e-2
    rows = rundir.read_metrics(tmp_path)
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(2, 121, 2))
    assert result.best["metrics"]["test_loss"] == min(row["loss"] for row in rows if row["split"] == "test")


class Killed(Exception):
    pass


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_run_cut_off_anywhere_ends_in_the_same_bits(tmp_path, learner, stream, length):
    """By an exception in the middle, which for all that is not yet saved is as abrupt as SIGKILL."""
    wanted, _ = go(tmp_path / "whole", learner, stream, steps_per_call=length, steps=17)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text()
    for cut in (1, 6, 11, 16):
        path = tmp_path / f"cut{cut}"

        def host(seed, i, cut=cut):
            if i == cut:
                raise Killed
            return stream.host(seed, i)

        with pytest.raises(Killed):
            go(path, learner, Stream(host, prefetch=stream.prefetch), steps_per_call=length, steps=17)
        got, _ = go(path, learner, stream, steps_per_call=length, steps=17)
        jax.tree.map(np.testing.assert_array_equal, wanted.arrays, got.arrays)
        assert (path / "metrics.jsonl").read_text() == lines
        assert got.best == wanted.best


def test_a_run_cut_off_after_its_last_step_takes_no_more(tmp_path, learner, stream):
    """Also where the last call was a short one, of 2 steps out of 5."""
    first, _ = go(tmp_path, learner, stream, steps=17, steps_per_call=5)
    again, _ = go(tmp_path, learner, stream, steps=17, steps_per_call=5)
    assert again.step == 17 and again.metrics == first.metrics and again.best == first.best
    jax.tree.map(np.testing.assert_array_equal, again.arrays, first.arrays)


def test_k_steps_a_call_equal_single_steps(tmp_path, learner, stream):
    results = [go(tmp_path / str(k), learner, stream, steps_per_call=k)[0].arrays for k in (1, 4, 5, 100)]
    for other in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), results[0], other)


def test_the_state_after_n_steps_is_the_learners_own(tmp_path, learner, stream):
    result, _ = go(tmp_path, learner, stream, steps=7)
    state = learner.init(jax.random.key(0), stream.host(0, 0))
    for i in range(7):
        state, _ = learner.step(state, stream.host(0, i))
    np.testing.assert_allclose(result.arrays.params["w"], state.params["w"], rtol=1e-5)
    assert result.arrays.step == 7


def test_nothing_compiles_after_the_second_step(tmp_path, learner):
    counts = []
    clock: list[Clock] = []

    def host(seed, i):
        counts.append(clock[0].compilations if clock else 0)
        x = np.random.default_rng([seed, i]).normal(size=(8, 3)).astype(np.float32)
        return {"x": x, "y": x.sum(-1)}

    watched = Clock(0.0)
    clock.append(watched)
    go(tmp_path, learner, Stream(host), steps=40, log_every=1, eval_every=1, checkpoint_every=1)
    assert counts[4] > 0
    assert counts[4:] == [counts[4]] * len(counts[4:])


def test_a_population_equals_its_members_and_pmap_equals_jit(tmp_path, learner, pmap_learner, stream):
    alone = [go(tmp_path / f"{seed}", learner, stream, (seed,))[0] for seed in (3, 4)]
    for name, rule in (("jit", learner), ("pmap", pmap_learner)):
        together, _ = go(tmp_path / f"all-{name}", rule, stream, (3, 4), program=name)
        for member, single in enumerate(alone):
            np.testing.assert_allclose(together.arrays.params["w"][member], single.arrays.params["w"], rtol=1e-5)
            value = together.metrics["test_loss"]["values"][member]
            np.testing.assert_allclose(value, single.metrics["test_loss"], rtol=1e-4)


def test_sigterm_saves_and_says_so(tmp_path, learner, stream):
    def host(seed, i):
        if i == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return stream.host(seed, i)

    whole = go(tmp_path / "whole", learner, stream)[0].arrays
    with pytest.raises(loop.Stopped, match="SIGTERM after step 7"):
        go(tmp_path / "cut", learner, Stream(host))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    saved = sorted(int(p.name) for p in (tmp_path / "cut" / "checkpoints").iterdir())
    assert saved[-1] == 7
    resumed = go(tmp_path / "cut", learner, stream)[0].arrays
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, learner, stream):
    def host(seed, i):
        batch = stream.host(seed, i)
        return batch | {"y": batch["y"] * np.float32("nan")} if i == 9 else batch

    with pytest.raises(UserError, match="loss is not finite at step 9; .* not finite is params/w; .* is of step 8"):
        go(tmp_path, learner, Stream(host), eval_every=100)
    assert not (tmp_path / "checkpoints" / "12").exists()


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, learner, stream):
    def step(state, batch):
        state, metrics = learner.step(state, batch)
        bad = jax.numpy.where(state.step == 8, jax.numpy.inf, 0.0)
        return state._replace(momentum={"w": state.momentum["w"] + bad}), metrics

    with pytest.raises(UserError, match="state is not finite after step 8; .* is momentum/w; .* is of step 4"):
        go(tmp_path, Learner(learner.init, step), stream, eval_every=100)


def test_an_unknown_metric_to_watch_is_refused(tmp_path, learner, stream):
    with pytest.raises(UserError, match="unknown metric to watch 'tset_loss'; did you mean test_loss"):
        go(tmp_path, learner, stream, monitor="tset_loss")


def test_a_checkpoint_of_another_model_is_refused_and_kept(tmp_path, learner, stream):
    go(tmp_path, learner, stream)
    wider = Stream(lambda seed, i: {"x": np.ones((8, 5), np.float32), "y": np.ones(8, np.float32)})
    with pytest.raises(UserError, match="of another model or program: .* 'params/w' .*3.*5"):
        go(tmp_path, learner, wider, steps=20)
    assert (tmp_path / "checkpoints" / "12").exists()


def test_a_learner_without_batches_runs_alike(tmp_path):
    """Reinforcement learning carries its environment inside the state and takes no batch."""

    def init(key, batch):
        from dlfx.learners.supervised import State

        return State({"w": jax.numpy.zeros(3)}, {}, {}, jax.numpy.int32(0), key)

    def step(state, batch):
        assert batch == ()
        w = state.params["w"] + 1
        return state._replace(params={"w": w}, step=state.step + 1), {"return": w.sum()}

    for k in (1, 4):
        result, _ = go(tmp_path / str(k), Learner(init, step), Stream(lambda seed, i: ()), steps_per_call=k)
        np.testing.assert_array_equal(result.arrays.params["w"], 12)
    assert json.loads((tmp_path / "4" / "metrics.jsonl").read_text().splitlines()[0])["return"] == 7.5
