"""scripts/bench rl: every side runs on tiny sizes, peers learn, and operations are counted as by hand."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from scripts.benchmarks import rl, timing
from scripts.benchmarks.timing import Side

pytest.importorskip("gymnasium")
pytest.importorskip("gymnax")


def positive(side):
    """The rate of one call, which must be a number above 0."""
    found = timing.rate(side, 0.0)
    return np.isfinite(found) and found > 0


def test_a_rate_is_of_as_many_calls_as_fill_the_time(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    made = []
    assert timing.rate(Side("a", 6, lambda: made.append(1)), 3.0) == 6.0  # three calls of a second each
    assert len(made) == 3


def test_sides_take_turns():
    seen = []
    sides = [Side(name, 1, lambda name=name: seen.append(name)) for name in "abc"]
    rates = timing.interleave(sides, 0.0, 2)
    assert seen == list("abcabc")
    assert {name: values.shape for name, values in rates.items()} == {"a": (2,), "b": (2,), "c": (2,)}


def test_comparing_and_writing():
    assert timing.compare(np.array([2.0, 8.0, 4.0]), np.array([1.0, 2.0, 4.0])) == (2.0, 1.0, 4.0)
    assert timing.words(np.array([900.0, 1000.0, 1300.0])) == "1,000 ±20%"


def test_flops_are_those_counted_by_hand():
    rl_dlfx = pytest.importorskip("scripts.benchmarks.rl_dlfx")
    # Layers 3 -> 2 -> 1, a batch of 4 every 2 steps. One row forward: 12 + 4 = 16. One row backward: weights 12 + 4,
    # inputs of the second layer 4: 20. A gradient step: 4 (16 + 16 + 20) = 208, half of it a step, and one row acting.
    assert rl_dlfx.flops_per_step((3, 2, 1), 4, 2) == 16 + 208 / 2
    # CartPole: 960 + 20,160 + 336 = 21,456 forward, 21,456 + 20,496 backward; 12.8 rows of each a step.
    assert rl_dlfx.flops_per_step() == pytest.approx(21_456 + 12.8 * (2 * 21_456 + 21_456 + 20_496))


def test_flops_are_those_of_the_compiled_products():
    from scripts.benchmarks.rl_dlfx import flops_per_step

    def forward(params, x):
        for i, w in enumerate(params):
            x = x @ w if i == len(params) - 1 else jax.nn.relu(x @ w)
        return x

    def products(jaxpr):
        """Operations of the matrix products in a program, from the shapes of their operands."""
        count = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                left, out = equation.invars[0].aval, equation.outvars[0].aval
                count += 2 * out.size * int(np.prod([left.shape[axis] for axis in contracted]))
            for inner in jaxprs_in_params(equation.params):
                count += products(inner)
        return count

    widths, batch = (5, 7, 6, 3), 8
    params = [np.ones((n, m), np.float32) for n, m in zip(widths[:-1], widths[1:], strict=True)]
    rows = np.ones((batch, 5), np.float32)

    def loss(online, target, rows):
        return ((forward(online, rows) - forward(target, rows)) ** 2).sum()

    learning = jax.make_jaxpr(jax.grad(loss))(params, params, rows)
    acting = jax.make_jaxpr(forward)(params, rows[:1])
    assert flops_per_step(widths, batch, 4) == products(acting.jaxpr) + products(learning.jaxpr) / 4


def test_dlfx_trains():
    from scripts.benchmarks import rl_dlfx

    side = rl_dlfx.q_learning_side(1, steps=2, unroll=5)
    assert side.amount == 2 * 5
    assert positive(side)
    side = rl_dlfx.dqn_side(3, steps=3, learning_starts=20)
    assert side.amount == 3 * 3 * 10
    assert positive(side)
    told = side.call()
    assert set(told) >= {"loss", "return"}
    assert (told["loss"] > 0).all()  # learning is under way when it is timed


def test_matmul_counts_its_operations():
    from scripts.benchmarks import rl_dlfx

    side = rl_dlfx.matmul_side(16)
    assert side.amount == 2 * 16**3
    assert positive(side)


def test_q_learning_peers_learn():
    pytest.importorskip("torch")
    from scripts.benchmarks import rl_peers

    for form in (rl_peers.q_learning_usual, rl_peers.q_learning_lean):
        returns = next(form(20_000))
        assert np.mean(returns[:10]) < -100
        assert -80 < np.mean(returns[-200:]) < -13  # the shortest way is 13, with falls while exploring


@pytest.mark.parametrize("kind", ["q_learning", "dqn"])
def test_peers_run(kind):
    torch = pytest.importorskip("torch")
    from scripts.benchmarks import rl_peers

    given = torch.get_num_threads()
    try:
        sides, threads = rl_peers.sides(kind, chunk=40, learning_starts=80)
        assert [side.name for side in sides] == ["usual", "lean"]
        assert all(positive(side) for side in sides)
        assert set(threads) == ({"usual", "lean"} if kind == "dqn" else set())
    finally:
        torch.set_num_threads(given)


def test_torch_buffer_keeps_the_newest():
    pytest.importorskip("torch")
    from scripts.benchmarks.rl_peers_torch import Buffer

    buffer = Buffer(3, (2,))
    for i in range(5):
        buffer.add([i, i], [i + 1, i + 1], i % 2, 10.0 * i, i == 4)
    state, successor, action, reward, end = (column.numpy() for column in buffer.sample(200))
    assert set(state[:, 0]) == {2.0, 3.0, 4.0}
    assert (successor == state + 1).all()
    assert (reward[:, 0] == 10 * state[:, 0]).all()
    assert (action[:, 0] == state[:, 0] % 2).all()
    assert (end[:, 0] == (state[:, 0] == 4)).all()


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_replay_of_dlfx(prioritized, members):
    from scripts.benchmarks import rl_replay

    side = rl_replay.side("dlfx", rl_replay.dlfx_memory(prioritized, 40, 8), members, 3)
    assert side.amount == 3 * members
    assert positive(side)
    assert side.call().shape == ((3, members) if members > 1 else (3,))


@pytest.mark.parametrize("prioritized", [False, True])
def test_replay_of_flashbax(prioritized):
    pytest.importorskip("flashbax")
    from scripts.benchmarks import rl_replay

    side = rl_replay.side("flashbax", rl_replay.flashbax_memory(prioritized, 40, 8), 2, 3)
    assert positive(side)
    assert np.isfinite(side.call()).all()


def test_host_sides_balance_the_pole():
    from scripts.benchmarks import rl_host

    side = rl_host.dlfx_side(2, 30)
    assert positive(side)
    assert side.call().sum() == 0  # 120 steps by now, and no pole has fallen
    side = rl_host.loop_side(2, 30)
    assert positive(side)
    assert side.call() == 0


def test_cases_by_name():
    assert rl.chosen("") == ["q_learning-1", "q_learning-64", "q_learning-4096", "dqn-1", "dqn-64"]
    assert rl.chosen("dqn") == ["dqn-1", "dqn-64"]
    assert rl.chosen("*-64") == ["q_learning-64", "dqn-64"]
    assert rl.chosen("replay") == ["replay"]
    assert set(rl.STEPS) == set(rl.chosen(""))


def test_an_unknown_case_is_named():
    command = [sys.executable, rl.__file__, "--only", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no case is called 'nothing'; there is q_learning-1" in done.stderr


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(rl, "NEEDED", ("json", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["rl"])
    with pytest.raises(SystemExit) as left:
        rl.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "rl: not measured, missing no_such_package: pip install no_such_package\n"


def test_rows_of_json(monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", ["rl", "--json", "--only", "q_learning-1"])
    monkeypatch.setattr(rl, "STEPS", {"q_learning-1": 1})
    monkeypatch.setattr(timing, "rate", lambda side, seconds: 6.0 if side.name == "q_learning-1" else 2.0)
    rl.main()
    rows = json.loads(capsys.readouterr().out)
    assert [row["peer"] for row in rows] == ["usual", "lean"]
    for row in rows:
        assert row["case"] == "Q-learning on CliffWalking, 1 seed"
        assert (row["dlfx_steps_per_second"], row["peer_steps_per_second"], row["ratio"]) == (6.0, 2.0, 3.0)
