"""Inception-v3: parameters, the sizes of the paper, the whole network written out in NumPy, dropout, batch norm."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification.inception_v3 import AuxiliaryHead, BasicConv2d, InceptionV3
from dlfx.types import UserError
from tests.compiling import quick


def abstract(module: Any, *sides: int, channels: int = 3, **how: Any) -> Any:
    """Shapes of ((logits, features), variables)."""
    images = jnp.zeros((2, *sides, channels))
    return jax.eval_shape(partial(module.init_with_output, **how), jax.random.key(0), images)


def fill(shapes: Any) -> Any:
    """Variables away from ones and zeros, which would hide mistakes, under which features keep their scale."""
    rng = np.random.default_rng(0)
    deviations = {"scale": (1.0, 0.1), "var": (1.0, 0.1), "bias": (0.0, 0.1), "mean": (0.0, 0.1)}

    def values(path: Any, leaf: Any) -> np.ndarray:
        center, deviation = deviations.get(path[-1].key, (0.0, (2 / np.prod(leaf.shape[:-1])) ** 0.5))
        return (center + deviation * rng.normal(size=leaf.shape).clip(-3, 3)).astype(np.float32)

    return jax.tree.map_with_path(values, shapes)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "module, expected, convolutions",
    [
        (InceptionV3(), 23_834_568, 94),
        (InceptionV3(aux_heads=True), 27_161_264, 96),
        (InceptionV3(num_classes=1008, fid=True), 23_834_568 + 8 * 2049, 94),
        (InceptionV3(num_classes=10), 23_834_568 - 990 * 2049, 94),
    ],
)
def test_parameters(module: InceptionV3, expected: int, convolutions: int) -> None:
    _, variables = abstract(module, 299, 299)
    assert size(variables["params"]) == expected
    assert sum(leaf.ndim == 4 for leaf in jax.tree.leaves(variables["params"])) == convolutions
    scales = [leaf for path, leaf in jax.tree.leaves_with_path(variables["params"]) if path[-1].key == "scale"]
    assert len(scales) == convolutions and size(variables["batch_stats"]) == 2 * size(scales)


@pytest.mark.parametrize("fid", [False, True])
def test_the_sizes_of_the_paper(fid: bool) -> None:
    """Table 1; between its rows the names and widths of the blocks."""
    (logits, features), variables = abstract(InceptionV3(fid=fid), 299, 299, capture_intermediates=True, mutable=True)
    assert logits.shape == (2, 1000)
    assert {name: value.shape[1:] for name, value in features.items()} == {
        "stem": (35, 35, 192), "mixed_5d": (35, 35, 288), "mixed_6e": (17, 17, 768), "mixed_7c": (8, 8, 2048),
        "pooled": (2048,),
    }  # fmt: skip
    blocks = {name: value for name, value in variables["intermediates"].items() if name[:3] in ("Con", "Mix")}
    assert {name: value["__call__"][0].shape[1:] for name, value in blocks.items()} == {
        "Conv2d_1a_3x3": (149, 149, 32), "Conv2d_2a_3x3": (147, 147, 32), "Conv2d_2b_3x3": (147, 147, 64),
        "Conv2d_3b_1x1": (73, 73, 80), "Conv2d_4a_3x3": (71, 71, 192),
        "Mixed_5b": (35, 35, 256), "Mixed_5c": (35, 35, 288), "Mixed_5d": (35, 35, 288), "Mixed_6a": (17, 17, 768),
        **{f"Mixed_6{letter}": (17, 17, 768) for letter in "bcde"}, "Mixed_7a": (8, 8, 1280),
        "Mixed_7b": (8, 8, 2048), "Mixed_7c": (8, 8, 2048),
    }  # fmt: skip


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    module = InceptionV3(num_classes=7, aux_heads=True)
    _, variables = abstract(module, 299, 299)
    train = partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    (_, features), updated = jax.eval_shape(train, variables, jnp.zeros((2, 299, 299, 3)))
    assert features["aux"].shape == (2, 7) and features["aux"].dtype == jnp.float32
    assert updated["batch_stats"] == variables["batch_stats"]
    _, features = jax.eval_shape(module.apply, variables, jnp.zeros((2, 75, 75, 3)))  # smaller ones will do here
    assert "aux" not in features
    with pytest.raises(UserError, match=r"at least 299, for its auxiliary head, .*got \[2, 299, 298, 3\]"):
        jax.eval_shape(train, variables, jnp.zeros((2, 299, 298, 3)))


@pytest.mark.parametrize("shape", [(1, 74, 75, 3), (1, 75, 32, 1), (75, 75, 3)])
def test_small_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros(shape))
    assert str(error.value) == (
        f"inception_v3 takes images [B, H, W, C] whose sides are at least 75, usually 299; got {list(shape)}"
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_dtypes(dtype: Any) -> None:
    with jax.enable_x64(dtype == jnp.float64):
        least32 = jnp.promote_types(dtype, jnp.float32)
        module = InceptionV3(aux_heads=True, dtype=dtype, param_dtype=least32)
        _, variables = abstract(module, 299, 299)
        (logits, features), updated = jax.eval_shape(
            partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}),
            variables,
            jnp.zeros((2, 299, 299, 3), dtype),
        )
        assert logits.dtype == features.pop("aux").dtype == least32
        assert {leaf.dtype for leaf in jax.tree.leaves(features)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves((variables["params"], updated))} == {least32}


def unit(variables: Any, x: np.ndarray, name: str, stride: int = 1, same: bool = True) -> np.ndarray:
    """Convolution, batch norm and ReLU in NumPy."""
    p, s = variables["params"], variables["batch_stats"]
    for part in name.split("/"):
        p, s = p[part], s[part]
    kernel = p["conv"]["kernel"]
    height, width = kernel.shape[:2]
    x = around(x, height // 2, width // 2, 0) if same else x
    rows, columns = (x.shape[1] - height) // stride + 1, (x.shape[2] - width) // stride + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[-1]), np.float32)
    for u, v in np.ndindex(height, width):
        y += x[:, u : u + stride * rows : stride, v : v + stride * columns : stride][:, :rows, :columns] @ kernel[u, v]
    y = (y - s["bn"]["mean"]) / np.sqrt(s["bn"]["var"] + 1e-3) * p["bn"]["scale"] + p["bn"]["bias"]
    return np.maximum(y, 0)


def around(x: np.ndarray, rows: int, columns: int, value: float) -> np.ndarray:
    return np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=value)


def windows(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]


def reduce(x: np.ndarray) -> np.ndarray:
    return windows(x, 3, 2).max((-2, -1))


def written_out(variables: Any, images: np.ndarray, fid: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The network in NumPy."""

    def chain(x: np.ndarray, block: str, *names: str) -> np.ndarray:
        """Units in a row; one that ends with `!` is of stride 2 without padding."""
        for name in names:
            last = name.endswith("!")
            x = unit(variables, x, f"{block}/{name.rstrip('!')}", 1 + last, not last)
        return x

    def average(x: np.ndarray) -> np.ndarray:
        if not fid:
            return windows(around(x, 1, 1, 0), 3, 1).sum((-2, -1)) / 9
        return np.nanmean(windows(around(x, 1, 1, np.nan), 3, 1), (-2, -1))

    def maximum(x: np.ndarray) -> np.ndarray:
        return windows(around(x, 1, 1, -np.inf), 3, 1).max((-2, -1))

    def join(*branches: np.ndarray) -> np.ndarray:
        return np.concatenate(branches, -1)

    features = {}
    x = unit(variables, images, "Conv2d_1a_3x3", 2, same=False)
    x = unit(variables, x, "Conv2d_2a_3x3", same=False)
    x = reduce(unit(variables, x, "Conv2d_2b_3x3"))
    x = unit(variables, unit(variables, x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False)
    features["stem"] = x = reduce(x)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = join(
            chain(x, block, "branch1x1"),
            chain(x, block, "branch5x5_1", "branch5x5_2"),
            chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            chain(average(x), block, "branch_pool"),
        )
    features["mixed_5d"] = x
    double = chain(x, "Mixed_6a", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3!")
    x = join(chain(x, "Mixed_6a", "branch3x3!"), double, reduce(x))
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = join(
            chain(x, block, "branch1x1"),
            chain(x, block, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            chain(x, block, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            chain(average(x), block, "branch_pool"),
        )
    features["mixed_6e"] = x
    seven = chain(x, "Mixed_7a", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4!")
    x = join(chain(x, "Mixed_7a", "branch3x3_1", "branch3x3_2!"), seven, reduce(x))
    for block in ("Mixed_7b", "Mixed_7c"):
        single = chain(x, block, "branch3x3_1")
        double = chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        pool = maximum if fid and block == "Mixed_7c" else average
        x = join(
            chain(x, block, "branch1x1"),
            *(chain(single, block, f"branch3x3_2{side}") for side in "ab"),
            *(chain(double, block, f"branch3x3dbl_3{side}") for side in "ab"),
            chain(pool(x), block, "branch_pool"),
        )
    features |= {"mixed_7c": x, "pooled": x.mean((1, 2))}
    head = variables["params"]["fc"]
    return features["pooled"] @ head["kernel"] + head["bias"], features


def test_the_network_written_out() -> None:
    # The last stage is 2x2, the least at which its maxima, averages, and averages with the padding all differ.
    images = np.random.default_rng(1).uniform(-1, 1, (2, 107, 111, 3)).astype(np.float32)
    variables = fill(abstract(InceptionV3(num_classes=5), 107, 111)[1])
    found = {}
    for fid in (False, True):
        logits, features = quick(InceptionV3(num_classes=5, fid=fid).apply)(variables, images)
        found[fid] = np.asarray(logits)
        expected, expected_features = written_out(variables, images, fid)
        assert list(expected_features) == ["stem", "mixed_5d", "mixed_6e", "mixed_7c", "pooled"]
        for name, wanted in (expected_features | {"logits": expected}).items():
            value = logits if name == "logits" else features[name]
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max(), err_msg=name)
    scale = np.abs(found[False]).max()
    assert np.abs(found[True] - found[False]).max() > 1e-2 * scale  # or the two would prove nothing


def test_the_auxiliary_head_written_out() -> None:
    head = AuxiliaryHead(3, partial(BasicConv2d, train=False), jnp.float32, jnp.float32)
    x = np.random.default_rng(0).uniform(size=(2, 17, 18, 6)).astype(np.float32)
    variables = fill(jax.eval_shape(head.init, jax.random.key(0), x))
    y = windows(x, 5, 3).mean((-2, -1))
    y = unit(variables, unit(variables, y, "conv0"), "conv1", same=False)
    assert y.shape == (2, 1, 1, 768)
    expected = y.mean((1, 2)) @ variables["params"]["fc"]["kernel"] + variables["params"]["fc"]["bias"]
    np.testing.assert_allclose(quick(head.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_training_drops_half_and_keeps_statistics() -> None:
    """With the identity for the last layer, the logits are what dropout leaves of the features."""
    module = InceptionV3(num_classes=2048)
    images = np.random.default_rng(1).uniform(-1, 1, (4, 75, 75, 3)).astype(np.float32)
    variables = fill(abstract(module, 75, 75)[1])
    variables["params"]["fc"] = {"kernel": np.eye(2048, dtype=np.float32), "bias": np.zeros(2048, np.float32)}

    @quick
    def run(variables: Any, key: jax.Array) -> Any:
        return module.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    train = partial(run, variables)
    (logits, features), updated = train(jax.random.key(0))
    pooled = np.asarray(features["pooled"])
    kept = np.asarray(logits) != 0
    np.testing.assert_allclose(np.asarray(logits)[kept], 2 * pooled[kept], rtol=1e-6)
    assert abs(kept[pooled > 0].mean() - 0.5) < 0.03  # of some 4000: four standard deviations
    (again, _), _ = train(jax.random.key(0))
    (other, _), _ = train(jax.random.key(1))
    assert (again == logits).all() and (other != logits).any()

    bare = {
        "params": {"x": {"conv": variables["params"]["Conv2d_1a_3x3"]["conv"], "bn": {"scale": 1, "bias": 1e3}}},
        "batch_stats": {"x": {"bn": {"mean": 0, "var": 1 - 1e-3}}},
    }
    y = unit(bare, images, "x", 2, same=False) - 1e3  # the convolution alone
    before, after = (tree["batch_stats"]["Conv2d_1a_3x3"]["bn"] for tree in (variables, updated))
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_over_an_axis_is_that_of_the_whole_batch() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    layer = BasicConv2d(3, (3, 3), train=True, axis_name="data")
    whole = BasicConv2d(3, (3, 3), train=True)
    variables = fill(jax.eval_shape(whole.init, jax.random.key(0), x))
    expected, statistics = quick(partial(whole.apply, mutable=["batch_stats"]))(variables, x)
    run = jax.vmap(lambda x: layer.apply(variables, x, mutable=["batch_stats"]), axis_name="data")
    halves, shared = quick(run)(x.reshape(2, 2, 6, 6, 2))
    np.testing.assert_allclose(halves.reshape(4, 4, 4, 3), expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-6), shared, statistics)

    module = InceptionV3(num_classes=3, axis_name="data")
    _, shapes = abstract(module, 75, 75)
    with pytest.raises(NameError, match="data"):  # which is to say that the network passes it on
        jax.eval_shape(
            partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}),
            shapes,
            jnp.zeros((2, 75, 75, 3)),
        )


def test_initialisation() -> None:
    """He's, of the fan-in, and the small ones of the auxiliary head."""
    layer, x = BasicConv2d(256, (3, 3)), jnp.zeros((1, 3, 3, 64))
    kernel = quick(layer.init)(jax.random.key(0), x)["params"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.01)
    head = AuxiliaryHead(100, BasicConv2d, jnp.float32, jnp.float32)
    params = quick(head.init)(jax.random.key(0), jnp.zeros((1, 17, 17, 4)))["params"]
    np.testing.assert_allclose(params["conv1"]["conv"]["kernel"].std(), 0.01 * 0.8796, rtol=0.01)  # cut at two
    np.testing.assert_allclose(params["fc"]["kernel"].std(), 0.001 * 0.8796, rtol=0.01)
