"""Generated tasks: right answers, parts that share nothing, batches from (seed, i)."""

import re
from datetime import date, datetime

import numpy as np
import pytest

from dlfx.data import number_words, sequence_tasks, sequences
from dlfx.types import UserError

ALL = pytest.mark.parametrize("name", list(sequence_tasks.TASKS))


@ALL
def test_parts_share_no_key_and_fit_the_lengths(name):
    task = sequence_tasks.load(name)
    keys = {}
    for part in sequence_tasks.PARTS:
        pairs = sequence_tasks.fixed(task, part, 300)
        assert len(set(pairs)) == 300 and pairs == sequence_tasks.fixed(task, part, 300)
        keys[part] = {task.key(pair) for pair in pairs}
        for left, right in pairs:
            assert len(left) <= task.source_length and len(right) + 1 <= task.target_length
            assert task.source.decode(task.source.encode(left)) == left
            assert task.target.decode(task.target.encode(right)) == right
    assert not keys["train"] & keys["valid"] and not (keys["train"] | keys["valid"]) & keys["test"]


@ALL
def test_batches_are_a_function_of_seed_and_i(name):
    task = sequence_tasks.load(name)
    stream = sequence_tasks.training_stream(task, 8)
    batch = stream.host(3, 4)
    again = sequence_tasks.training_stream(task, 8).host(3, 4)
    halves = [sequence_tasks.training_stream(task, 8, p, 2).host(3, 4) for p in range(2)]
    for field in batch:
        np.testing.assert_array_equal(batch[field], again[field])
        np.testing.assert_array_equal(batch[field], np.concatenate([half[field] for half in halves]))
    assert (stream.host(3, 5)["source"] != batch["source"]).any() and (
        stream.host(4, 4)["source"] != batch["source"]
    ).any()
    assert batch["source"].shape == (8, task.source_length) and batch["target"].shape == (8, task.target_length)
    for k in range(8):
        end = batch["target_lengths"][k] - 1
        assert batch["target"][k, end] == task.target.special["<eos>"] and not batch["target"][k, end + 1 :].any()
        pair = task.source.decode(batch["source"][k]), task.target.decode(batch["target"][k])
        assert sequence_tasks.part_of(task.key(pair)) == "train"
        assert len(pair[0]) == batch["source_lengths"][k]


def test_ten_thousand_sums_that_training_never_sees_in_either_order():
    task = sequence_tasks.addition(3)
    test = sequence_tasks.fixed(task, "test", 10_000)
    unseen = set()
    for left, right in test:
        a, b = map(int, left.split("+"))
        assert a + b == int(right) and a < 1000 and b < 1000
        unseen |= {(a, b), (b, a)}
    assert len(set(test)) == 10_000
    stream = sequence_tasks.training_stream(task, 2000)
    seen = set()
    for i in range(10):
        batch = stream.host(0, i)
        for row in batch["source"]:
            a, b = map(int, task.source.decode(row).split("+"))
            seen.add((a, b))
    assert len(seen) > 19_000 and not seen & unseen


def test_a_part_that_has_too_few_is_reported():
    with pytest.raises(UserError, match="no 200 different test"):
        sequence_tasks.fixed(sequence_tasks.addition(1), "test", 200)


def test_reversal_turns_around():
    pairs = sequence_tasks.fixed(sequence_tasks.reversal(2, 5, "abc"), "train", 100)
    assert all(right == left[::-1] and 2 <= len(left) <= 5 for left, right in pairs)


READ = (
    ("%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%A, %B %d, %Y", "%A %d %B %Y", "the %d of %B %Y")
    + ("%B %d, %Y", "%Y %B %d", "%d.%m.%Y", "%d.%m.%Y", "%m/%d/%Y", "%m/%d/%Y", "%Y%m%d")
)  # fmt: skip


def test_dates_are_read_back_by_datetime():
    for day in ("1900-01-01", "1999-12-31", "2000-02-29", "2024-05-03", "2011-09-11", "2099-10-22"):
        written = [sequence_tasks.written_date(np.datetime64(day), form) for form in sequence_tasks.DATE_FORMATS]
        for text, form in zip(written, READ, strict=True):
            plain = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1", text)
            assert datetime.strptime(plain, form).date() == date.fromisoformat(day), text
            if "%A" in form:
                assert date.fromisoformat(day).strftime("%A") in text
    assert (
        sequence_tasks.written_date(np.datetime64("2011-09-11"), "the {nth} of {Month} {y}")
        == "the 11th of September 2011"
    )
    assert sequence_tasks.written_date(np.datetime64("2099-10-22"), "{Month} {nth}, {y}") == "October 22nd, 2099"


def value(text: str) -> int:
    """Words to the number, from left to right."""
    total = group = 0
    for word in re.split("[ -]", text):
        if word in number_words.ONES:
            group += number_words.ONES.index(word)
        elif word in number_words.TENS:
            group += 10 * number_words.TENS.index(word)
        elif word == "hundred":
            group *= 100
        else:
            total, group = total + group * {"thousand": 10**3, "million": 10**6, "billion": 10**9}[word], 0
    return total + group


def test_number_words():
    assert number_words.words(0) == "zero" and number_words.words(13) == "thirteen"
    assert number_words.words(321_040) == "three hundred twenty-one thousand forty"
    assert number_words.words(2_000_000_015) == "two billion fifteen"
    assert all(value(number_words.words(n)) == n for n in [*range(3000), *range(99_000, 10**9, 7_654_321)])
    for digits in range(1, 6):
        assert number_words.longest(digits) == max(len(number_words.words(n)) for n in range(10**digits))
    assert number_words.longest(6) == len(number_words.words(777_777)) > number_words.longest(5)


def test_copying_asks_for_what_was_said_a_lag_ago():
    stream = sequence_tasks.copy_stream(lag=7, batch_size=4, count=3, symbols=5)
    batch = stream.host(0, 0)
    assert batch["tokens"].shape == (4, 13)
    for k in range(3):
        np.testing.assert_array_equal(batch["targets"][:, 3 + 7 + k], batch["tokens"][:, k])
    assert set(np.unique(batch["tokens"][:, :3])) <= {1, 2, 3, 4, 5}
    assert (batch["tokens"][:, 9] == 6).all() and not batch["tokens"][:, 10:].any()
    assert not batch["tokens"][:, 3:9].any() and not batch["targets"][:, :10].any()
    np.testing.assert_array_equal(batch["mask"], np.tile([0] * 10 + [1] * 3, (4, 1)))
    half = sequence_tasks.copy_stream(7, 4, 3, 5, process=1, processes=2).host(0, 0)
    np.testing.assert_array_equal(half["tokens"], batch["tokens"][2:])
    assert (stream.host(0, 1)["tokens"] != batch["tokens"]).any()
    with pytest.raises(UserError, match="lag 0"):
        sequence_tasks.copy_stream(0, 4)


def test_pairs_of_a_file(tmp_path):
    path = tmp_path / "pairs.txt"
    lines = [f"left {k % 400}\tright {k}\tCC BY" for k in range(800)]
    path.write_text("\n".join([*lines, "", lines[0]]) + "\n", encoding="utf-8")
    parts = sequence_tasks.read_pairs(path)
    assert sorted(sum(parts.values(), [])) == sorted(tuple(line.split("\t")[:2]) for line in lines)
    lefts = [{left for left, _ in pairs} for pairs in parts.values()]
    assert sum(map(len, lefts)) == 400 and len(lefts[0]) > 330 and min(map(len, lefts)) > 8
    path.write_text("a\tb\nno pair\n")
    with pytest.raises(UserError, match="line 2 of .*no tab"):
        sequence_tasks.read_pairs(path)
    path.write_text("a\tb\nc\t\n")
    with pytest.raises(UserError, match="line 2 of .*empty side"):
        sequence_tasks.read_pairs(path)


def test_pairs_become_padded_batches():
    task = sequence_tasks.reversal()
    pairs = sequence_tasks.fixed(task, "valid", 10)
    fields = sequence_tasks.fields(pairs, task.source, task.target)
    stream, batches = sequences.evaluation_stream(fields, 4, sequence_tasks.lengths(task))
    read = []
    for i in range(batches):
        batch = stream.host(0, i)
        real = batch["mask"] == 1
        for source, target in zip(batch["source"][real], batch["target"][real], strict=True):
            read.append((task.source.decode(source), task.target.decode(target)))
    assert read == pairs


def test_an_unknown_task_is_reported():
    with pytest.raises(UserError, match="'additon'; did you mean addition"):
        sequence_tasks.load("additon")
