"""Convolutional layers against PyTorch's, and by their definition."""

import jax
import numpy as np
import pytest

from dlfx.nn.convolution import ConvTranspose


def test_a_transposed_convolution_doubles_the_sides():
    layer = ConvTranspose(3, (4, 4), padding=1)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    y, variables = layer.init_with_output(jax.random.key(1), x)
    assert y.shape == (2, 10, 12, 3)
    assert jax.tree.map(lambda x: x.shape, variables["params"]) == {"kernel": (4, 4, 4, 3), "bias": (3,)}
    shifted = {"params": {**variables["params"], "bias": np.array([1.0, 2.0, 3.0], np.float32)}}
    np.testing.assert_allclose(layer.apply(shifted, x) - y, np.broadcast_to([1.0, 2.0, 3.0], y.shape), atol=1e-5)


@pytest.mark.parametrize("size, stride, padding", [(4, 2, 1), (3, 2, 0), (5, 3, 2)])
def test_it_equals_pytorch(size, stride, padding):
    torch = pytest.importorskip("torch")
    layer = ConvTranspose(3, (size, size), (stride, stride), padding)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    y, variables = layer.init_with_output(jax.random.key(1), x)
    theirs = torch.nn.ConvTranspose2d(4, 3, size, stride, padding)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(np.asarray(variables["params"]["kernel"]).transpose(2, 3, 0, 1)))
        theirs.bias.zero_()
        expected = theirs(torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, expected, atol=1e-5)
