"""The studies of experiments.recurrence_textbook in small: what they find, and that they draw."""

import sys

import numpy as np
import pytest

from experiments import recurrence_textbook as textbook


def only(monkeypatch, table, *labels):
    monkeypatch.setattr(textbook, table, {label: getattr(textbook, table)[label] for label in labels})


def test_gradients_fade_but_where_the_way_back_is_open(tmp_path, monkeypatch):
    some = "RNN, tanh, Xavier", "RNN, ReLU, identity", "LSTM, forget bias 0", "LSTM, forget bias 1"
    only(monkeypatch, "NETWORKS", *some)
    found = textbook.gradients(steps=40, units=24, inputs=4, batch=2, seeds=3)
    last = {label: told["median"][-1] / told["median"][0] for label, told in found.items()}
    assert last["RNN, tanh, Xavier"] < 1e-3 and last["LSTM, forget bias 0"] < 1e-3
    assert last["LSTM, forget bias 1"] > 30 * last["LSTM, forget bias 0"]
    assert last["RNN, ReLU, identity"] > 0.1
    assert all(np.all(np.array(told["low"]) <= told["high"]) for told in found.values())
    textbook.draw_gradients(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(textbook.tell_gradients(found)) == len(textbook.NETWORKS)


def test_copying_is_learned_over_a_short_lag(tmp_path, monkeypatch):
    only(monkeypatch, "COPIERS", "RNN, tanh, Xavier", "LSTM, forget bias 1")
    found = textbook.copying(lag=1, count=1, symbols=2, units=8, steps=200, seeds=2)
    for told in found["networks"].values():
        accuracy = np.array(told["accuracy"])
        assert accuracy.shape == (2, 4) and np.all(accuracy[:, -1] > 0.9)
    textbook.draw_copying(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(textbook.tell_copying(found)) == len(textbook.COPIERS)


def test_a_study_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recurrence_textbook", "gradient", f"--out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        textbook.main()
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    assert "did you mean gradients" in capsys.readouterr().err
