"""Generators and critics: shapes, labels, layers as described, and spectral normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.generative.gan import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator, doublings
from tests.compiling import quick

KEY = jax.random.key(0)


def start(module, *inputs):
    return quick(module.init)(KEY, *inputs)


def shapes(module, *inputs):
    return jax.eval_shape(lambda: module.init(KEY, *inputs))["params"]


@pytest.mark.parametrize("side", [8, 9, 16, 25, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_gives_images_of_any_size_and_judges_them(side, channels):
    shape = (side, side, channels)
    generator, critic = DCGANGenerator(shape, 4), DCGANCritic(4)

    def both(z):
        images, _ = generator.init_with_output(KEY, z)
        return images, critic.init_with_output(KEY, images)[0]

    images, logits = jax.eval_shape(both, jnp.zeros((3, 5)))
    assert images.shape == (3, *shape) and logits.shape == (3,) and logits.dtype == jnp.float32


def test_dcgan_of_28_has_the_layers_of_its_description():
    generator = shapes(DCGANGenerator((28, 28, 1), 16), jnp.zeros((1, 10)))
    assert generator["project"]["kernel"].shape == (10, 7 * 7 * 32)
    assert generator["up1"]["kernel"].shape == (4, 4, 32, 16) and generator["up2"]["kernel"].shape == (4, 4, 16, 1)
    assert set(generator) == {"project", "norm0", "up1", "norm1", "up2"}
    critic = shapes(DCGANCritic(16), jnp.zeros((1, 28, 28, 1)))
    assert critic["Conv_0"]["kernel"].shape == (4, 4, 1, 16) and critic["Conv_1"]["kernel"].shape == (4, 4, 16, 32)
    assert critic["Dense_0"]["kernel"].shape == (7 * 7 * 32, 1) and set(critic) == {
        "Conv_0", "Conv_1", "BatchNorm_0", "Dense_0",
    }  # fmt: skip
    assert [doublings(side) for side in (8, 14, 28, 32, 64)] == [2, 2, 2, 3, 4]


def test_dcgan_weights_begin_small_and_images_are_bounded():
    generator = DCGANGenerator((16, 16, 1), 8)
    images, variables = quick(generator.init_with_output)(KEY, 100 * jax.random.normal(KEY, (4, 64)))
    assert np.abs(images).max() <= 1
    kernels = [variables["params"][name]["kernel"].ravel() for name in ("project", "up1")]
    np.testing.assert_allclose([k.std() for k in kernels], 0.02, rtol=0.05)


def test_a_critic_without_batch_norm_judges_each_image_on_its_own():
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    critic = DCGANCritic(4, batch_norm=False)
    variables = start(critic, images)
    assert set(variables) == {"params"}
    apply = quick(lambda images: critic.apply(variables, images, train=True))
    alone = [apply(image[None])[0] for image in images]
    np.testing.assert_allclose(apply(images), alone, rtol=1e-4, atol=1e-6)


def test_mlps_take_points_and_images():
    z = jax.random.normal(KEY, (3, 4))
    points, _ = quick(MLPGenerator((2,), (8,)).init_with_output)(KEY, z)
    images, _ = quick(MLPGenerator((8, 8, 1), (8,), bounded=True).init_with_output)(KEY, 100 * z)
    assert points.shape == (3, 2) and images.shape == (3, 8, 8, 1) and np.abs(images).max() <= 1
    for examples in (points, images):
        assert quick(MLPCritic((8,)).init_with_output)(KEY, examples)[0].shape == (3,)


@pytest.mark.parametrize("critic", [MLPCritic((8,), num_classes=3), DCGANCritic(4, num_classes=3)])
def test_the_critic_projects_the_label_onto_its_features(critic):
    """Miyato and Koyama's form: what a label adds to the logit is linear in the features, one vector a label."""
    images, labels = jax.random.normal(KEY, (3, 8, 8, 1)), jnp.array([0, 1, 2])
    variables = start(critic, images, labels)
    name = "Dense_1" if isinstance(critic, DCGANCritic) else "Dense_2"
    without = jax.tree.map(jnp.copy, variables)
    without["params"][name]["kernel"] *= 0
    apply = quick(lambda variables: critic.apply(variables, images, labels, capture_intermediates=True))
    logits, seen = apply(variables)
    added = logits - apply(without)[0]
    scores = seen["intermediates"][name]["__call__"][0]
    assert scores.shape == (3, 3) and "bias" not in variables["params"][name]
    np.testing.assert_allclose(added, np.diagonal(scores), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("generator", [MLPGenerator((2,), (8,), num_classes=3), DCGANGenerator((8, 8, 1), 4, 3)])
def test_the_generator_hears_the_label(generator):
    z = jnp.broadcast_to(jax.random.normal(KEY, (1, 4)), (2, 4))
    variables = start(generator, z, jnp.array([0, 1]))
    apply = quick(lambda labels: generator.apply(variables, z, labels))
    same, different = (apply(jnp.array(labels)) for labels in ([1, 1], [0, 1]))
    np.testing.assert_array_equal(same[0], same[1])
    assert (different[0] != different[1]).any()


@pytest.mark.parametrize(
    "critic",
    [MLPCritic((32, 32), spectral=True), DCGANCritic(8, batch_norm=False, spectral=True)],
    ids=["mlp", "dcgan"],
)
def test_the_largest_singular_value_of_every_effective_kernel_tends_to_one(critic):
    """Kernels of convolutions as matrices [kh kw C, O]. The effective kernel is read off from what a layer gives."""
    images = jax.random.normal(KEY, (2, 8, 8, 1))
    variables = start(critic, images)
    assert set(variables) == {"params", "spectral"}
    apply = quick(lambda v: critic.apply(v, images, train=True, mutable=["spectral"])[1])
    for _ in range(200):
        variables = {**variables, **apply(variables)}
    sigmas = {name: value for name, value in _flat(variables["spectral"]).items() if name.endswith("sigma")}
    kernels = {name: value for name, value in _flat(variables["params"]).items() if name.endswith("kernel")}
    assert len(sigmas) == len(kernels) == 3
    for name, kernel in kernels.items():
        largest = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        sigma = next(value for key, value in sigmas.items() if name.split("/")[-2] in key)
        np.testing.assert_allclose(largest / sigma, 1, rtol=2e-3)
    # The layers do divide by it: with kernels of any scale the critic is the same, but for the biases, which are 0.
    doubled = {**variables, "params": jax.tree.map(lambda x: 2 * x, variables["params"])}
    judge = quick(lambda v: critic.apply(v, images))
    np.testing.assert_allclose(judge(doubled), judge(variables), rtol=1e-3)


def _flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, sub in tree.items() for k, v in _flat(sub, f"{prefix}/{name}").items()}


def test_a_critic_with_spectral_normalisation_is_lipschitz():
    critic = MLPCritic((16, 16), spectral=True)
    x = 3 * jax.random.normal(KEY, (200, 2))
    variables = start(critic, x)
    apply = quick(lambda v: critic.apply(v, x, train=True, mutable=["spectral"])[1])
    for _ in range(50):
        variables = {**variables, **apply(variables)}
    slopes = quick(jax.vmap(jax.grad(lambda p: critic.apply(variables, p[None])[0])))(x)
    assert np.linalg.norm(slopes, axis=1).max() <= 1.001


def test_float64_keeps_its_types():
    """What a step changes may not change its type: statistics of batch norm, vectors of spectral normalisation."""
    with jax.enable_x64(True):
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        images = jnp.zeros((2, 8, 8, 1), jnp.float64)
        for critic in (DCGANCritic(4, **types), DCGANCritic(4, False, True, **types), MLPCritic((4,), True, **types)):

            def both(critic=critic):
                variables = critic.init(KEY, images)
                told = critic.apply(variables, images, train=True, mutable=["batch_stats", "spectral"])
                return {k: v for k, v in variables.items() if k != "params"}, *told

            before, logits, extra = jax.eval_shape(both)
            assert logits.dtype == jnp.float64 and extra == before
