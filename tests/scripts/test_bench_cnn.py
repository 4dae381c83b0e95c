"""What scripts/bench cnn makes of its timings, and the operations that it counts."""

import numpy as np
import pytest

pytest.importorskip("torch")

from scripts.benchmarks import cnn, cnn_dlfx  # noqa: E402


def test_the_ratio_is_to_the_best_peer_and_leaves_stock_out():
    rates = {
        "dlfx": np.array([100.0, 110.0, 90.0]),
        "PyTorch": np.array([50.0, 50.0, 50.0]),
        "PyTorch channels_last": np.array([80.0, 81.0, 79.0]),
        "stock": np.array([500.0, 500.0, 500.0]),
    }
    row = cnn.summary(rates)
    assert row["peer"] == "PyTorch channels_last" and row["dlfx_ms"] == 10 and row["peer_ms"] == 12.5
    np.testing.assert_allclose(row["ratio"], 1.25)
    np.testing.assert_allclose(row["ratio_range"], [90 / 79, 110 / 81])
    assert row["milliseconds"]["stock"] == 2
    told = cnn.told(row | {"case": "LeNet", "gflop": 0.5, "images_per_second": 12800.0}, 100.0)
    assert told.startswith("LeNet: ratio 1.25 (1.14 to 1.36, to PyTorch channels_last)") and "50% of the peak" in told


@pytest.mark.parametrize(
    "model, image, multiply_adds",
    [
        # conv 5x5x1x6 to 28x28, 5x5x6x16 to 10x10, dense 400-120-84-10: LeNet-5 pads its first convolution.
        ("lenet5", (32, 32, 1), 28 * 28 * 150 + 100 * 2400 + 400 * 120 + 120 * 84 + 84 * 10),
        # torchvision tells 4.09 GFLOPS (multiply-adds) of its ResNet-50, of 1,000 classes.
        ("resnet50", (224, 224, 3), 4_089_184_256 - 2048 * 990),
    ],
)
def test_the_operations_of_a_step(model, image, multiply_adds):
    case = cnn.Case(model, image, batch=4, population=2)
    assert cnn_dlfx.flops(case) == 3 * 2 * multiply_adds * 4 * 2


def test_batches_have_the_shapes_of_their_case():
    images, labels = cnn.random_batch(cnn.Case("lenet5", (28, 28, 1), 3, population=2))
    assert images.shape == (2, 3, 28, 28, 1) and labels.shape == (2, 3)
