"""The studies of experiments.hopfield in small: what they find, and that they draw."""

import json
import sys

import numpy as np
import pytest

from experiments import hopfield as study


def test_recall_of_digits(tmp_path):
    found = study.recall(shares=(0.0, 0.125, 0.5), times=4)
    three, ten, projection = (found["by memory"][label]["back"] for label in study.MEMORIES)
    assert three[0] == projection[0] == 1 and ten[0] < 0.3  # ten digits are too much for Hebb's rule
    assert min(three[1], projection[1]) > 0.6 and max(three[2], projection[2]) < 0.2
    wrong = (np.array(found["stored"]) != np.array(found["corrupted"])).mean(-1)
    np.testing.assert_allclose(wrong, found["share"], atol=0.5 / 64)
    for told in found["by memory"].values():
        assert np.all(np.diff(told["energies"], axis=0) <= 1e-4)
        stored = np.array(found["stored"])[list(told["digits"])]
        assert ((np.array(told["recalled"]) != stored).sum(-1) == told["wrong"]).all()
    study.draw_recall(found, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 30_000
    assert len(study.tell_recall(found)) == 3


def test_capacity_from_the_command_line(tmp_path, monkeypatch, capsys):
    small = lambda: study.capacity(sizes=(300,), loads=(0.08, 0.2), recalled=40)  # noqa: E731
    monkeypatch.setitem(study.STUDIES, "capacity", (small, study.draw_capacity, study.tell_capacity))
    monkeypatch.setattr(sys, "argv", ["hopfield", "capacity", f"--out={tmp_path}"])
    study.main()
    found = json.loads((tmp_path / "capacity.json").read_text())
    below, beyond = found["by size"]["300"]["error"]
    assert below < 0.005 < 0.05 < beyond
    assert (tmp_path / "capacity.png").stat().st_size > 20_000
    assert "theory: 0.016" in capsys.readouterr().out


def test_a_study_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hopfield", "capasity", f"--out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        study.main()
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    assert "did you mean capacity" in capsys.readouterr().err
