"""U-Net, the generator of CycleGAN and the patch critic: shapes, what reaches what, and counts of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.generative.translation import PatchCritic, ResNetGenerator, UNet
from dlfx.types import UserError
from tests.compiling import quick


def count(module, *shape):
    variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_parameters_of_the_papers_networks():
    """Counted by hand from the papers' tables of layers: kernels, and the scale and offset of a norm or a bias."""

    def conv(k, i, o, norm=True):
        return k * k * i * o + (2 * o if norm else o)

    resnet = conv(7, 3, 64) + conv(3, 64, 128) + conv(3, 128, 256) + 9 * 2 * conv(3, 256, 256)
    resnet += conv(4, 256, 128) + conv(4, 128, 64) + conv(7, 64, 3, norm=False)
    assert count(ResNetGenerator(3, 64, 9), 1, 32, 32, 3) == resnet

    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    unet = conv(4, 3, 64, norm=False) + conv(4, 512, 512, norm=False)
    unet += sum(conv(4, i, o) for i, o in zip(widths[:6], widths[1:7], strict=True))
    unet += conv(4, 512, 512) + sum(conv(4, 2 * i, o) for i, o in zip(widths[6:0:-1], widths[5::-1], strict=True))
    unet += conv(4, 128, 3, norm=False)
    assert count(UNet(3, 64, 8), 1, 256, 256, 3) == unet

    patch = conv(4, 6, 64, norm=False) + conv(4, 64, 128) + conv(4, 128, 256) + conv(4, 256, 512)
    assert count(PatchCritic(64, 3), 1, 256, 256, 6) == patch + conv(4, 512, 1, norm=False)


@pytest.mark.parametrize("layers, field", [(0, 7), (1, 16), (2, 34), (3, 70)])
def test_how_much_a_patch_sees(layers, field):
    """The paper's 16, 34 and 70: by the recursion over the layers, and by what the gradient reaches."""
    seen = 1
    for stride in [1, 1] + [2] * layers:
        seen = (seen - 1) * stride + 4
    assert seen == field
    critic = PatchCritic(2, layers)
    side = max(2 * field, 2 ** (layers + 2))
    x = jax.random.normal(jax.random.key(0), (1, side, side, 1))
    variables = quick(critic.init)(jax.random.key(1), x)
    places = jax.eval_shape(critic.apply, variables, x).shape[1]
    if layers == 1:  # instance norm spreads every pixel over the image; the convolutions alone do not
        weights = {k: v for k, v in variables["params"].items() if k.startswith(("conv", "output"))}

        def plain(x):
            for name, strides in (("conv0", 2), ("conv1", 1), ("output", 1)):
                kernel = jnp.abs(weights[name]["kernel"])
                x = jax.lax.conv_general_dilated(
                    x, kernel, (strides, strides), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            return x[0, places // 2, places // 2, 0]

        reached = np.abs(jax.grad(plain)(x))[0, :, :, 0] > 0
        assert reached.any(0).sum() == reached.any(1).sum() == seen


def test_unet_sees_by_its_skips_and_its_noise_is_dropout():
    unet = UNet(1, 4, 3)
    x = jax.random.normal(jax.random.key(0), (2, 16, 8, 1))
    variables = quick(unet.init)(jax.random.key(1), x)
    still = quick(unet.apply)(variables, x)
    assert still.shape == x.shape and jnp.abs(still).max() <= 1
    dropped = quick(lambda key: unet.apply(variables, x, train=True, rngs={"dropout": key}))
    noisy = [dropped(jax.random.key(i)) for i in (2, 2, 3)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    blocked = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "up2" in str(path) else leaf, variables
    )
    slope = quick(jax.grad(lambda x: unet.apply(blocked, x).sum()))(x)
    assert jnp.abs(slope).sum() > 0, "past the waist it still sees x"


def test_resnet_generator_keeps_the_size():
    generator = ResNetGenerator(3, 4, 1)
    x = jax.random.normal(jax.random.key(0), (2, 12, 8, 1))
    y, _ = quick(generator.init_with_output)(jax.random.key(1), x)
    assert y.shape == (2, 12, 8, 3) and jnp.abs(y).max() <= 1


@pytest.mark.parametrize(
    "module, side, says",
    [(UNet(1, 4, 4), 24, "multiples of 16"), (ResNetGenerator(1), 10, "multiples of 4"), (PatchCritic(4, 2), 8, "16")],
)
def test_other_sizes_are_told(module, side, says):
    with pytest.raises(UserError, match=says):
        module.init(jax.random.key(0), jnp.zeros((1, side, side, 1)))
