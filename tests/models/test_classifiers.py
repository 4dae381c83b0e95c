"""What every image classifier keeps to."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax.errors import InvalidRngError

from dlfx.models.classification import AUX_WEIGHT, INPUT_SIZE, MODELS, head_of
from dlfx.types import UserError

SIDES = {"inception_v3": 75, "alexnet": 63, "alexnet_2012": 63, "alexnet_2012_ungrouped": 63}  # not 32x32
DEEPER = {"vgg13", "vgg16", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnext101_32x8d", "plain56"}
DEEPER |= {f"{kind}resnet{depth}" for kind in ("", "pre") for depth in (32, 34, 44, 56, 101, 110, 152)}
WALKED = [name for name in MODELS if name not in DEEPER]  # one of each form; the counts are of all
DROP = {"alexnet", "alexnet_2012", "alexnet_2012_ungrouped", "vgg11", "vgg11_bn", "googlenet", "googlenet_bn"}
DROP |= {"inception_v3", "mobilenet_v2"}  # by default, as published


def images(name: str, channels: int = 1) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, *2 * (SIDES.get(name, 32),), channels), jnp.float32)


@pytest.mark.parametrize("name", WALKED)
def test_one_way_to_make_and_to_call_them(name: str) -> None:
    module: Any = MODELS[name](num_classes=10, dtype=jnp.float32, param_dtype=jnp.float32, axis_name=None, width=1.0)
    x = images(name)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert {"params"} <= set(variables) <= {"params", "batch_stats"}
    train = partial(module.apply, train=True, mutable=["batch_stats"])
    (logits, features), updated = jax.eval_shape(partial(train, rngs={"dropout": jax.random.key(1)}), variables, x)
    assert logits.shape == (2, 10) and logits.dtype == jnp.float32
    assert all(isinstance(key, str) and value.shape[0] == 2 for key, value in features.items())
    kept = {key: value for key, value in variables.items() if key != "params"}
    assert updated == kept  # the shapes and types, so that a step can be scanned
    head = head_of(variables["params"])
    assert (head is None) == (name == "lenet5_1998") and (not head or variables["params"][head]["bias"].shape == (10,))

    if name in DROP:
        with pytest.raises(InvalidRngError, match="dropout"):
            jax.eval_shape(train, variables, x)
        jax.eval_shape(module.clone(dropout=0.0).apply, variables, x)
    else:
        jax.eval_shape(train, variables, x)
    if "batch_stats" in variables:
        with pytest.raises(NameError, match="data"):  # which is to say that batch norm takes the axis
            jax.eval_shape(partial(module.clone(axis_name="data").apply, train=True), variables, x)


@pytest.mark.parametrize(
    "name",
    ["lenet5", "conv_blocks", "alexnet_2012", "vgg11", "googlenet", "inception_v2", "inception_v3", "preresnet20"]
    + ["resnext50_32x4d", "se_resnet50", "mobilenet_v1", "mobilenet_v2"],
)
def test_half_the_width(name: str) -> None:
    """Kernels keep their sides and lose half of their channels, or nearly, the first inputs and the classes aside."""
    x = images(name, 3)

    def kernels(width: float) -> list[tuple[int, ...]]:
        params = jax.eval_shape(MODELS[name](num_classes=10, width=width).init, jax.random.key(0), x)["params"]
        return [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1]

    whole, half = kernels(1.0), kernels(0.5)
    assert len(whole) == len(half) and all(a[:-2] == b[:-2] for a, b in zip(whole, half, strict=True))
    ratios = [b[-1] / a[-1] for a, b in zip(whole, half, strict=True) if a[-1] not in (10, 1280)]
    assert sum(0.4 < ratio < 0.7 for ratio in ratios) >= 0.95 * len(ratios)


def test_the_width_of_lenet_s_table_is_fixed() -> None:
    with pytest.raises(UserError, match="lenet5_1998 .* width 1; got 0.5"):
        MODELS["lenet5_1998"](width=0.5).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))


@pytest.mark.parametrize(
    "name",
    ["lenet5", "lenet5_1998", "preresnet20", "se_resnet50", "googlenet", "alexnet_2012", "vgg11_bn", "mobilenet_v2"],
)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_dtypes(name: str, dtype: Any) -> None:
    """Computed in one type; parameters, statistics and logits in at least float32, and the same after a step."""
    with jax.enable_x64(dtype == jnp.float64):
        least32 = jnp.promote_types(dtype, jnp.float32)
        module: Any = MODELS[name](num_classes=10, dtype=dtype, param_dtype=least32)
        x = jax.ShapeDtypeStruct((2, *2 * (SIDES.get(name, 32),), 1), dtype)
        (logits, features), variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        run = partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
        _, updated = jax.eval_shape(run, variables, x)
        assert logits.dtype == least32
        assert {leaf.dtype for leaf in jax.tree.leaves(features)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {least32}


SMALLEST = {"vgg11": 32, "vgg16_bn": 32, "alexnet": 63, "alexnet_2012": 63, "alexnet_2012_ungrouped": 63}
SMALLEST |= {"googlenet": 31, "googlenet_bn": 15, "inception_v2": 8, "inception_v3": 75}
SMALLEST |= {"mobilenet_v1": 8, "mobilenet_v2": 8, "conv_blocks": 8}
SMALLEST |= dict.fromkeys(["resnet20", "resnet50", "resnet18_cifar", "plain20", "preresnet20", "preresnet50"], 8)
SMALLEST |= dict.fromkeys(["resnext50_32x4d", "se_resnet50"], 8)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image(name: str) -> None:
    side, usual = SMALLEST[name], {224: ", usually 224", 299: ", usually 299"}.get(INPUT_SIZE[name], "")
    if name.startswith(("mobilenet", "inception_v2", "preres", "resn", "se_")):
        usual = ""  # they take nearly all
    module = MODELS[name](width=0.125)
    jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side + 1, 3), jnp.float32))
    for shape in ((1, side - 1, side, 3), (1, side, side - 1, 1), (side, side, 3)):
        with pytest.raises(UserError) as error:
            jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
        assert str(error.value) == (
            f"{name} takes images [B, H, W, C] whose sides are at least {side}{usual}; got {list(shape)}"
        )


def test_weights_of_auxiliary_heads_are_of_the_models_that_have_them() -> None:
    assert set(AUX_WEIGHT) == {name for name in WALKED if hasattr(MODELS[name](), "aux_heads")}
    assert AUX_WEIGHT["googlenet"] == 0.3  # the paper's
