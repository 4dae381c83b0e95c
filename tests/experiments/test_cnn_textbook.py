"""The studies of experiments.cnn_textbook: what they find, and that they draw."""

import json
import sys

import numpy as np
import pytest

from experiments import cnn_textbook as textbook


def test_activations(tmp_path, monkeypatch, capsys):
    some = dict(list(textbook.ACTIVATIONS.items())[:8])
    monkeypatch.setattr(textbook, "ACTIVATIONS", some)
    monkeypatch.setattr(sys, "argv", ["cnn_textbook", "activations", f"--out={tmp_path}"])
    textbook.main()
    assert (tmp_path / "activations.png").stat().st_size > 30_000
    assert list(json.loads((tmp_path / "activations.json").read_text())["by_name"]) == list(some)
    assert len(capsys.readouterr().out.splitlines()) == len(some) + 2


def test_a_study_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cnn_textbook", "initialization", f"--out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        textbook.main()
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    assert "did you mean initialisation" in capsys.readouterr().err


def test_who_keeps_the_size_of_activations_and_gradients(tmp_path):
    """Xavier for tanh, He for ReLU; too small vanishes, too large explodes with ReLU and saturates tanh."""
    found = textbook.initialisation(depth=50, channels=32, side=4, images=4)
    last = {label: told["std"][-1] for label, told in found.items()}
    first = {label: told["delta"][0] for label, told in found.items()}
    for label in ("tanh, Xavier", "tanh, orthogonal", "relu, He"):
        assert 0.02 < last[label] < 5 and 0.02 < first[label] < 5, label
    for label in ("relu, Xavier", "relu, orthogonal", "tanh, N(0, 0.03^2)", "relu, N(0, 0.03^2)"):
        assert last[label] < 1e-5 and first[label] < 1e-5, label
    assert last["relu, N(0, 0.1^2)"] > 1e3 < first["relu, N(0, 0.1^2)"]
    assert 0.5 < last["tanh, N(0, 0.1^2)"] < 1 and first["tanh, N(0, 0.1^2)"] > 30
    for name in ("tanh", "relu"):  # batch norm: nothing vanishes, with no shortcut
        label = f"{name}, {textbook.NORMALISED}"
        assert 0.5 < last[label] < 1 and first[label] > 1
    for label, told in found.items():  # a tanh network is near its limit even with 32 channels
        if label.startswith("tanh") and "std of theory" in told:
            np.testing.assert_allclose(np.log(told["std"]), np.log(told["std of theory"]), atol=0.5, err_msg=label)
    textbook.draw_initialisation(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(textbook.tell_initialisation(found)) == len(found)


def test_theory_is_exact_where_it_has_a_closed_form():
    """A rectifier passes half of the square, and half of the gradient's."""
    told = textbook.mean_field("relu", 1.5, 6)
    np.testing.assert_allclose(told["std of theory"], [0.75 ** (layer / 2) for layer in range(1, 7)], rtol=1e-4)
    np.testing.assert_allclose(
        told["delta of theory"], [0.5**0.5 * 0.75 ** ((6 - layer) / 2) for layer in range(1, 7)], rtol=1e-4
    )


def test_the_ways_back(tmp_path):
    found = textbook.upsampling()
    errors = {label.split("\n")[0]: told["error"] for label, told in found.items()}
    assert errors["the image"] == 0 and errors["maxima"] is None
    assert errors["means, bilinear"] < errors["means, nearest"] < errors["maxima, nearest"] < errors["maxima, unpooled"]
    images = {label: np.array(told["image"]) for label, told in found.items()}
    tent = next(image for label, image in images.items() if "tent" in label)
    inner = np.s_[4:-4, 4:-4]  # the transposed convolution sees zeros beyond the edge
    np.testing.assert_allclose(tent[inner], images["means, bilinear"][inner], atol=1e-5)
    textbook.draw_upsampling(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 50_000
