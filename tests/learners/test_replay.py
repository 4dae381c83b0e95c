"""The replay memory against a deque that keeps the newest rows, and the tree of sums against sums."""

from collections import Counter, deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dlfx.learners import replay as memory
from dlfx.types import UserError
from tests.compiling import quick

ENVS, STEPS, SIZE, GAMMA = 3, 2, 8, 0.9  # environments, rows of a block, rows in the memory
CAPACITY = ENVS * SIZE
NUMBER = jax.ShapeDtypeStruct((2,), jnp.float32)


add = quick(memory.add)


def draw_many(n):
    return quick(
        lambda key, replay, beta: memory.sample(key, replay, 4096, ENVS, n=n, gamma=GAMMA, beta=beta),
    )


SAMPLE = {n: draw_many(n) for n in (1, 3)}


def block(rng, number):
    """Rows 2 number and 2 number + 1; an observation is (row, environment), its successor the same plus 1/2."""
    row = number * STEPS + np.arange(STEPS)
    observation = np.stack(np.broadcast_arrays(row[:, None], np.arange(ENVS)), -1).astype(np.float32)
    ended = rng.random((STEPS, ENVS)) < 0.3
    return memory.Transition(
        observation,
        rng.integers(0, 4, (STEPS, ENVS)).astype(np.int32),
        rng.normal(size=(STEPS, ENVS)).astype(np.float32),
        observation + 0.5,
        ended & (rng.random((STEPS, ENVS)) < 0.5),
        ended,
    )


def reconstruct(rows, n):
    """Every n-step transition of the log: observation to (action, reward, discount, successor)."""
    found = {}
    for start in range(len(rows) - n + 1):
        for e in range(ENVS):
            reward, discount = 0.0, 1.0
            for row in list(rows)[start : start + n]:
                reward, discount = reward + discount * float(row.reward[e]), discount * GAMMA
                if row.ended[e]:
                    break
            discount = 0.0 if row.terminated[e] else discount
            found[tuple(rows[start].observation[e])] = (rows[start].action[e], reward, discount, *row.successor[e])
    return found


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_every_transition_sampled_is_one_of_the_log_and_whole(n, prioritized):
    rng = np.random.default_rng(n)
    log, replay = deque(maxlen=SIZE), memory.empty(CAPACITY, NUMBER, prioritized)
    for number in range(11):  # the ring is full after 4
        new = block(rng, number)
        replay = add(replay, new)
        log.extend(jax.tree.map(lambda x, t=t: x[t], new) for t in range(STEPS))
        if len(log) < n:
            continue
        drawn = jax.tree.map(np.asarray, SAMPLE[n](jax.random.key(number), replay, 0.5))
        truth = reconstruct(log, n)
        counts = Counter(map(tuple, drawn.observation))
        assert set(counts) == set(truth)
        expected = np.array([truth[tuple(start)] for start in drawn.observation])
        found = np.column_stack([drawn.action, drawn.reward, drawn.discount, drawn.successor])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(replay.rows.observation)[drawn.places], drawn.observation)
        if prioritized:
            np.testing.assert_allclose(drawn.weight, 1, rtol=1e-6)  # all have the first priority still
        else:
            observed = np.array(list(counts.values()))
            chi = ((observed - observed.mean()) ** 2 / observed.mean()).sum()
            assert chi < scipy.stats.chi2.ppf(1 - 1e-5, len(observed) - 1)
            assert (drawn.weight == 1).all()


def test_the_memory_holds_the_newest_rows_of_any_type():
    observation = jax.ShapeDtypeStruct((2, 1), jnp.bool_)
    replay = memory.empty(CAPACITY, observation, False)
    assert replay.tree is None and replay.rows.observation.dtype == replay.rows.ended.dtype == jnp.bool_
    rng, log = np.random.default_rng(0), deque(maxlen=SIZE)
    for number in range(6):
        seen = rng.random((STEPS, ENVS, 2, 1)) < 0.5
        new = block(rng, number)._replace(observation=seen, successor=~seen)
        replay = add(replay, new)
        log.extend(jax.tree.map(lambda x, t=t: x[t], new) for t in range(STEPS))
    assert replay.written == 12
    # Row r of environment e lies at r E + e; the oldest row of all, number 4, is half-way.
    rows = list(log)[SIZE - 4 :] + list(log)[: SIZE - 4]
    for name in memory.Transition._fields:
        expected = np.concatenate([getattr(row, name) for row in rows])
        np.testing.assert_array_equal(getattr(replay.rows, name), expected, err_msg=name)


@pytest.mark.parametrize("capacity", [1, 5, 8, 24, 70])
def test_the_tree_holds_the_sums_of_its_leaves(capacity):
    tree = memory.empty(capacity, NUMBER, True).tree
    leaves = len(tree[0])
    assert (
        leaves >= capacity and (leaves == 8 or leaves < 8 * capacity) and [len(level) for level in tree[-2:]] == [8, 1]
    )
    rng, truth = np.random.default_rng(capacity), [{0.0} for _ in range(leaves)]
    update = quick(memory.set_priorities)
    for _ in range(20):
        index, priority = rng.integers(0, capacity, 7), rng.random(7).astype(np.float32)
        tree = update(tree, index, priority)
        for i in set(index):
            truth[i] = {float(p) for j, p in zip(index, priority, strict=True) if j == i}
        held = np.asarray(tree[0])
        assert all(float(value) in allowed for value, allowed in zip(held, truth, strict=True))
        sums = np.float64(held)
        for level in tree:
            np.testing.assert_allclose(level, sums, rtol=1e-6)
            sums = sums.reshape(-1, 8).sum(-1) if len(sums) > 1 else sums


def test_the_descent_ends_where_the_running_sum_passes_the_mass():
    rng = np.random.default_rng(0)
    priority = rng.integers(0, 5, 24).astype(np.float32)  # whole numbers, so that sums are exact; some are 0
    priority[[0, 23]] = 0
    tree = memory.set_priorities(memory.empty(24, NUMBER, True).tree, jnp.arange(24), priority)
    mass = np.arange(0, priority.sum(), 0.5, dtype=np.float32)
    expected = np.searchsorted(priority.cumsum(), mass, side="right")
    np.testing.assert_array_equal(quick(memory.find)(tree, mass), expected)
    assert (priority[expected] > 0).all()
    # Rounding may bring a mass to the very sum, or past it: it still finds something that has a priority.
    past = memory.find(tree, jnp.array([priority.sum(), priority.sum() + 1]))
    np.testing.assert_array_equal(past, 2 * [np.flatnonzero(priority)[-1]])


def full(priority):
    rng, replay = np.random.default_rng(0), memory.empty(CAPACITY, NUMBER, True)
    for number in range(6):
        replay = add(replay, block(rng, number))
    return replay._replace(tree=memory.set_priorities(replay.tree, jnp.arange(CAPACITY), jnp.float32(priority)))


def test_prioritised_draws_are_proportional_to_priorities_and_weighted_against_it():
    priority = np.random.default_rng(1).random(CAPACITY) ** 3
    replay, p = full(priority), priority / priority.sum()
    for beta in (0.0, 0.4, 1.0):
        drawn = SAMPLE[1](jax.random.key(0), replay, beta)
        counts = np.bincount(drawn.places, minlength=CAPACITY)
        # One draw from each equal share: only the shares at its two ends can be another's.
        assert (np.abs(counts - 4096 * p) < 2.01).all()
        weight = (CAPACITY * p[np.asarray(drawn.places)]) ** -beta
        np.testing.assert_allclose(drawn.weight, weight / weight.max(), rtol=1e-4)


def test_while_the_memory_fills_only_what_is_there_counts():
    replay = add(memory.empty(CAPACITY, NUMBER, True), block(np.random.default_rng(0), 0))
    priority = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    replay = replay._replace(tree=memory.set_priorities(replay.tree, jnp.arange(6), jnp.float32(priority)))
    drawn = SAMPLE[1](jax.random.key(0), replay, 1.0)
    assert (np.abs(np.bincount(drawn.places, minlength=6) - 4096 * priority / 21) < 2.01).all()
    np.testing.assert_allclose(drawn.weight, 1 / priority[np.asarray(drawn.places)], rtol=1e-5)  # the largest is 1's


def test_of_the_newest_rows_of_a_prioritised_memory_the_last_whole_one_stands_in():
    """With n = 3 and row 12 to be written next, rows 10 and 11 are drawn as row 9; the others as they should be."""
    priority = np.random.default_rng(2).random(CAPACITY)
    drawn = SAMPLE[3](jax.random.key(0), full(priority), 0.0)
    by_row = dict(zip([8, 9, 10, 11, 4, 5, 6, 7], priority.reshape(SIZE, ENVS), strict=True))
    by_row[9] = by_row[9] + by_row.pop(10) + by_row.pop(11)
    counts = Counter((row, e) for row, e in np.asarray(drawn.observation).astype(int))
    for (row, e), count in counts.items():
        assert abs(count - 4096 * by_row[row][e] / priority.sum()) < (6.01 if row == 9 else 2.01)
    assert sum(counts.values()) == 4096 and len(counts) == 6 * ENVS


def test_errors_become_priorities_and_new_transitions_get_the_largest():
    replay = full(np.ones(CAPACITY))
    replay = memory.reprioritize(replay, jnp.array([3, 17]), jnp.array([-4.0, 0.0]), 0.5)
    leaves = np.asarray(replay.tree[0])
    np.testing.assert_allclose(leaves[[3, 17, 5]], [2, 1e-3, 1], rtol=1e-5)
    assert replay.largest == pytest.approx(2) and replay.tree[-1][0] == pytest.approx(CAPACITY - 2 + 2.001)
    replay = memory.reprioritize(replay, jnp.array([3]), jnp.array([0.01]), 0.5)
    assert replay.largest == pytest.approx(2)  # so far
    replay = add(replay, block(np.random.default_rng(0), 6))  # rows 12 and 13, in the place of 4 and 5
    leaves = np.asarray(replay.tree[0])
    np.testing.assert_allclose(leaves[12:18], 2, rtol=1e-6)
    assert leaves[3] == pytest.approx(0.1, rel=1e-3) and replay.tree[-1][0] == pytest.approx(leaves.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("capacity", "batch", "block_size", "n", "envs", "message"),
    [
        (16, 32, 4, 1, 1, "a replay of 16 transitions is smaller than a batch of 32"),
        (100, 32, 40, 1, 4, r"a replay of 100 .* not a multiple of the 40 .* \(environments x steps\); try 80 or 120"),
        (32, 32, 40, 1, 4, "a replay of 32 .* not a multiple of the 40 .*; try 40$"),
        (16, 8, 8, 2, 8, "a replay of 16 transitions is too small for 2 steps of 8 environments"),
    ],
)
def test_a_memory_that_cannot_serve_is_refused(capacity, batch, block_size, n, envs, message):
    with pytest.raises(UserError, match=message) as error:
        memory.check(capacity, batch, block_size, n, envs)
    assert "\n" not in str(error.value)


def test_memories_that_just_suffice_are_taken():
    memory.check(32, 32, 8, 3, 8)
    memory.check(8, 8, 8, 1, 4)
