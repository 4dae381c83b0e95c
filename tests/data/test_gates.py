"""Tiny tables: truth by Python's own logic, what a line separates, files and their mistakes, streams without gaps."""

import operator

import numpy as np
import pytest

from dlfx.data import gates
from dlfx.types import UserError

LOGIC = {
    "and": operator.and_,
    "or": operator.or_,
    "nand": lambda a, b: not (a and b),
    "xor": operator.xor,
}


@pytest.mark.parametrize("name", LOGIC)
def test_gates_are_python_s(name):
    table = gates.load(name)
    assert table.x.shape == (4, 3) and (table.x[:, 0] == -1).all() and table.columns == ("x1", "x2")
    assert len(np.unique(table.x, axis=0)) == 4
    for (_, a, b), target in zip(table.x, table.target, strict=True):
        assert target == (1 if LOGIC[name](a > 0, b > 0) else -1)


def test_not_and_the_worked_example():
    table = gates.load("not")
    np.testing.assert_array_equal(table.x, [[-1, -1], [-1, 1]])
    np.testing.assert_array_equal(table.target, [1, -1])
    table = gates.load("notes")
    np.testing.assert_array_equal(table.x, [[-1, 1, -2, 0], [-1, 0, 1.5, -0.5], [-1, -1, 1, 0.5]])
    np.testing.assert_array_equal(table.target, [-1, -1, 1])
    assert gates.NOTES_WEIGHTS == (0.5, 1, -1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_line_separates_clouds_and_none_separates_overlap(seed):
    from scipy.optimize import linprog

    def feasible(table):
        """Whether some W has `d W . X >= 1` for all rows."""
        rows = -table.target[:, None] * table.x
        return linprog(np.zeros(3), rows, -np.ones(len(rows)), bounds=[(None, None)] * 3).status == 0

    apart, near = gates.load("clouds", seed), gates.load("overlap", seed)
    assert feasible(apart) and not feasible(near)
    assert (apart.target * (apart.x[:, 1:].sum(1) / 2**0.5)).min() >= 0.3 - 1e-12
    assert not np.array_equal(apart.x, gates.load("clouds", seed + 1).x)
    np.testing.assert_array_equal(near.x, gates.load("overlap", seed).x)
    assert abs(apart.target.sum()) == 0 and len(near.x) == 60


def test_a_file_with_a_header_and_one_without(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("height, weight ,sick\n1.5,2,0\n\n-3e1,4,1\n")
    table = gates.load(str(path))
    np.testing.assert_array_equal(table.x, [[-1, 1.5, 2], [-1, -30, 4]])
    np.testing.assert_array_equal(table.target, [-1, 1])
    assert table.columns == ("height", "weight") and table.name == "points"
    path.write_text("1.5,2,-1\n3,4,1\n")
    table = gates.load(str(path))
    np.testing.assert_array_equal(table.target, [-1, 1])
    assert table.columns == ("x1", "x2")


FILES = {
    "": "holds no row of numbers",
    "a,b\n": "holds no row of numbers",
    "1\n0\n": "has 1 column",
    "1,2,0\n1,1\n": "line 2: 2 columns, where 3 are expected",
    "a,b,c\n1,x,0\n": "line 2: 'x' is not a finite number",
    "1,x,0\n": "line 1: 'x' is not a finite number",
    "1,nan,0\n": "line 1: 'nan' is not a finite number",
    "1,2,0\n1,2,2\n": "line 2: the class 2 in the last column; classes are -1 and 1, or 0 and 1",
    "1,2,0\n1,2,-1\n": "line 2: the class -1 in the last column",
    "1,2,0.5\n": "the class 0.5",
}


@pytest.mark.parametrize("text", FILES)
def test_what_is_wrong_with_a_file(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=FILES[text]) as error:
        gates.load(str(path))
    assert "bad.csv" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="none.csv cannot be read: No such file"):
        gates.load(str(tmp_path / "none.csv"))
    (tmp_path / "picture.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is no CSV file"):
        gates.load(str(tmp_path / "picture.csv"))
    with pytest.raises(UserError, match="unknown data set 'nandd'; did you mean nand.*FILE.csv"):
        gates.load("nandd")


def test_standardized_columns():
    rng = np.random.default_rng(0)
    table = gates.table("t", np.column_stack([rng.normal(5, 3, 50), np.full(50, 7.0)]), np.ones(50))
    scaled = gates.standardized(table)
    np.testing.assert_allclose(scaled.x.mean(0), [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(scaled.x.std(0), [0, 1, 0], atol=1e-12)


def rows(stream, table, seed, batches):
    """Which rows came, from what came."""
    seen = np.concatenate([stream.host(seed, i)["x"] for i in range(batches)])
    return [int(np.flatnonzero((table.x == row).all(1))[0]) for row in seen]


def test_streams_go_over_the_ends_of_epochs():
    table = gates.load("notes")
    for size in (1, 2, 4):
        found = rows(gates.stream(table, size, False, np.dtype("float64")), table, 0, 12 // size)
        assert found == [0, 1, 2] * 4


def test_shuffled_epochs_are_permutations_by_seed_and_of_no_batch_size():
    table = gates.load("overlap")
    wanted = rows(gates.stream(table, 1, True, np.dtype("float64")), table, 3, 120)
    assert sorted(wanted[:60]) == sorted(wanted[60:]) == list(range(60)) and wanted[:60] != wanted[60:]
    assert rows(gates.stream(table, 8, True, np.dtype("float64")), table, 3, 15) == wanted
    assert rows(gates.stream(table, 8, True, np.dtype("float64")), table, 4, 15) != wanted


def test_processes_share_a_batch_in_order():
    table = gates.load("clouds")
    whole = gates.stream(table, 6, True, np.dtype("float32")).host(1, 5)
    parts = [gates.stream(table, 6, True, np.dtype("float32"), i, 3).host(1, 5) for i in range(3)]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
        assert whole[name].dtype == np.float32
    with pytest.raises(UserError, match="batch of 6 cannot be shared evenly by 4"):
        gates.stream(table, 6, True, np.dtype("float32"), 0, 4)
