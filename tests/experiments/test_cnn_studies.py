"""The studies of convolutional networks, in small."""

import json
from functools import partial

import numpy as np
import pytest

from dlfx.models.classification import MODELS


@pytest.fixture(scope="module")
def studies():
    import importlib

    return importlib.import_module("experiments.cnn_studies")


def test_degradation_tells_of_every_network(studies, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "DEPTHS", {"plain20": "#4477aa"})
    found = studies.degradation(2, epochs=2, width=0.125)
    for told in found["networks"].values():
        errors = np.array(told["train_error"])
        assert errors.shape == (2, 2) and (errors[:, 1] < errors[:, 0]).all()
        assert np.array(told["gradients"]).shape == (2, 19) and np.all(np.array(told["gradients"]) > 0)
        assert len(told["final_test_error"]) == 2
    seeds = found["networks"]["plain20"]["train_error"]
    assert seeds[0] != seeds[1]
    studies.draw_degradation(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert [line.split(":")[0] for line in studies.tell_degradation(found)] == ["plain20"]


def test_effects_are_differences_of_pairs(studies, tmp_path):
    labels = [studies._label(tuple(bool(i >> k & 1) for k in range(3))) for i in range(8)]
    worth = {"augmentation": 0.04, "dropout": 0.02, "Adam": -0.01}
    noise = np.array([0.0, 0.003, -0.002])
    accuracy = {label: list(0.8 + sum(v for tip, v in worth.items() if tip in label) + noise) for label in labels}
    found = {"accuracy": accuracy, "seeds": 3, "per_class": 20, "steps": 10}
    for tip, gain in studies.effects(found).items():
        np.testing.assert_allclose(gain, worth[tip], atol=1e-12)
    studies.draw_ablation(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_ablation_trains_all_combinations(studies, monkeypatch):
    monkeypatch.setattr(studies, "NETWORK", partial(MODELS["conv_blocks"], pattern="1x4p;8"))
    found = studies.ablation(2, steps=2)
    assert len(found["accuracy"]) == 8 and all(len(values) == 2 for values in found["accuracy"].values())
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("arguments", [["nothing"], ["--seeds=1"]])
def test_mistakes_get_one_line(studies, arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cnn_studies", *arguments])
    with pytest.raises(SystemExit) as left:
        studies.main()
    assert left.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
