"""LeNet-5, today's and the one of 1998: parameters, features, and the 1998 network written out in NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification import MODELS
from dlfx.models.classification.lenet import C3_INPUTS, DIGITS, SparseConv, digit_codes, squash
from dlfx.ops.pooling import max_pool
from dlfx.types import UserError

# Table I of the paper as printed: a row for each map of S2, a column for each map of C3.
TABLE_I = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]

FEATURES = {
    "c1": (28, 28, 6), "s2": (14, 14, 6), "c3": (10, 10, 16), "s4": (5, 5, 16), "c5": (120,), "f6": (84,),
}  # fmt: skip


def counts(name: str) -> dict[str, int]:
    """The number of parameters of each layer."""
    module = MODELS[name]()
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]
    return {layer: sum(leaf.size for leaf in jax.tree.leaves(leaves)) for layer, leaves in params.items()}


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def fill(module: Any, x: Any) -> Any:
    """Variables without the cost of compiling `init`, whose biases are not zero."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), shapes)


def test_todays_form_has_61706_parameters_and_none_in_its_pooling() -> None:
    expected = {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850}
    assert counts("lenet5") == expected  # max-pooling has none: s2 and s4 are not there
    assert sum(expected.values()) == 61_706


def test_the_form_of_1998_trains_60000() -> None:
    expected = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert counts("lenet5_1998") == expected  # subsampling has a coefficient and a bias a map; the output has none
    assert sum(expected.values()) == 60_000


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_features(name: str) -> None:
    module = MODELS[name](axis_name="data")  # taken, and of no consequence
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((3, 32, 32, 1)))
    assert set(variables) == {"params"}
    run = partial(module.apply, train=True, mutable=["batch_stats"])
    (logits, features), extra = jax.eval_shape(run, variables, jnp.zeros((3, 32, 32, 1)))
    assert logits.shape == (3, 10) and not extra
    assert {key: value.shape for key, value in features.items()} == {k: (3, *v) for k, v in FEATURES.items()}


def test_todays_form_takes_other_sizes() -> None:
    module = MODELS["lenet5"](num_classes=7)
    for height, width, channels, flat in ((28, 28, 1, 256), (16, 20, 3, 32)):
        x = jnp.zeros((2, height, width, channels))
        (logits, features), variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        assert logits.shape == (2, 7) and variables["params"]["c5"]["kernel"].shape == (flat, 120)
        assert features["c1"].shape == (2, height - 4, width - 4, 6)


@pytest.mark.parametrize("shape", [(1, 12, 12, 1), (1, 30, 32, 1), (1, 32, 30, 1), (32, 32, 1)])
def test_todays_form_refuses_sizes(shape: tuple[int, ...]) -> None:
    module = MODELS["lenet5"]()
    with pytest.raises(UserError, match=r"^lenet5 takes .* multiples of 4 and at least 16.*got") as error:
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    assert str(error.value).endswith(f"got {list(shape)}") and "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (1, 32, 32, 3), (32, 32, 1)])
def test_the_form_of_1998_refuses_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        jax.eval_shape(MODELS["lenet5_1998"]().init, jax.random.key(0), jnp.zeros(shape))
    assert str(error.value) == f"lenet5_1998 takes images [B, 32, 32, 1]; got {list(shape)}"
    with pytest.raises(UserError, match="lenet5_1998 .* 10 digits; got 11 classes"):
        MODELS["lenet5_1998"](num_classes=11).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))


def test_max_pooling_routes_gradients_sparsely_and_still_every_filter_weight_has_one() -> None:
    module, x = MODELS["lenet5"](), images(8, 32, 32, 1)
    variables = jax.tree.map(lambda leaf: np.float32(leaf if leaf.ndim > 1 else 0 * leaf), fill(module, x))

    @jax.jit
    def run(variables: Any) -> tuple[Any, jax.Array]:
        def loss(variables: Any, x: jax.Array) -> jax.Array:
            return -jax.nn.log_softmax(module.apply(variables, x)[0])[:, 0].mean()

        routed = jax.grad(lambda c1: max_pool(c1, 2).sum())(module.apply(variables, x)[1]["c1"])
        return jax.grad(loss)(variables, x)["params"], routed

    gradients, routed = run(variables)
    assert np.count_nonzero(routed) == routed.size // 4
    for layer in ("c1", "c3"):
        assert np.count_nonzero(gradients[layer]["kernel"]) == gradients[layer]["kernel"].size


def test_the_paper_s_table_of_connections() -> None:
    """C3's maps depend on the maps of S2 that Table I marks, and on no other."""
    c3: Any = SparseConv(C3_INPUTS, (5, 5))
    s2 = images(1, 14, 14, 6)

    @jax.jit
    def jacobian() -> jax.Array:
        variables = c3.init(jax.random.key(0), s2)
        return jax.jacobian(lambda s2: c3.apply(variables, s2).sum((0, 1, 2)))(s2)

    reads = np.abs(jacobian()).sum((1, 2, 3)) > 0  # [16, 6]
    np.testing.assert_array_equal(reads.T, np.array([list(row) for row in TABLE_I]) == "X")


def test_the_form_of_1998_written_out() -> None:
    """Every unit as the paper defines it, in loops."""
    with jax.enable_x64(True):
        module = MODELS["lenet5_1998"](dtype=jnp.float64, param_dtype=jnp.float64)
        x = np.random.default_rng(0).normal(size=(1, 32, 32, 1))
        variables = fill(module, x)
        logits, features = jax.jit(module.apply)(variables, x)
    p: Any = jax.tree.map(np.asarray, variables["params"])

    def f(a: Any) -> Any:
        return 1.7159 * np.tanh(2.0 / 3.0 * a)

    c1 = np.empty((28, 28, 6))
    for i, j, o in np.ndindex(*c1.shape):
        c1[i, j, o] = f((x[0, i : i + 5, j : j + 5, 0] * p["c1"]["kernel"][:, :, 0, o]).sum() + p["c1"]["bias"][o])

    def subsample(maps: np.ndarray, layer: Any) -> np.ndarray:
        out = np.empty((maps.shape[0] // 2, maps.shape[1] // 2, maps.shape[2]))
        for i, j, c in np.ndindex(*out.shape):
            total = maps[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].sum()
            out[i, j, c] = f(layer["coefficient"][c] * total + layer["bias"][c])
        return out

    s2 = subsample(c1, p["s2"])
    c3, connection = np.empty((10, 10, 16)), 0
    for o in range(16):
        total = np.full((10, 10), p["c3"]["bias"][o])
        for c in range(6):
            if TABLE_I[c][o] == "X":
                for i, j in np.ndindex(10, 10):
                    total[i, j] += (s2[i : i + 5, j : j + 5, c] * p["c3"]["kernel"][:, :, connection]).sum()
                connection += 1
        c3[:, :, o] = f(total)
    assert connection == 60
    s4 = subsample(c3, p["s4"])
    c5 = f(s4.reshape(-1) @ p["c5"]["kernel"] + p["c5"]["bias"])
    f6 = f(c5 @ p["f6"]["kernel"] + p["f6"]["bias"])
    bitmaps = [[line.split()[digit] for line in DIGITS.strip().split("\n")] for digit in range(10)]
    codes = np.array([[1.0 if ink == "#" else -1.0 for row in bitmap for ink in row] for bitmap in bitmaps])

    for name, expected in {"c1": c1, "s2": s2, "c3": c3, "s4": s4, "c5": c5, "f6": f6}.items():
        np.testing.assert_allclose(features[name][0], expected, rtol=1e-10, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(logits[0], [-np.square(f6 - code).sum() for code in codes], rtol=1e-10)


def test_the_codes_are_ten_different_bitmaps_that_f6_can_reach() -> None:
    codes = digit_codes()
    assert codes.shape == (10, 7 * 12) and set(np.unique(codes)) == {-1, 1}
    differences = (codes[:, None] != codes[None]).sum(-1)
    assert (differences[~np.eye(10, dtype=bool)] >= 8).all()
    # The codes lie at the squashing function's points of greatest curvature: f(1) = 1, f(-1) = -1.
    np.testing.assert_allclose(squash(jnp.array([1.0, -1.0])), [1, -1], atol=1e-4)


def test_initial_weights_of_1998_are_uniform_within_the_paper_s_limits() -> None:
    params = jax.jit(MODELS["lenet5_1998"]().init)(jax.random.key(0), images(1, 32, 32, 1))["params"]
    params = jax.tree.map(np.asarray, params)
    for name, fan_in in (("c1", 25), ("c5", 400), ("f6", 120)):
        largest = np.abs(params[name]["kernel"]).max()
        assert 0.9 * 2.4 / fan_in < largest <= 2.4 / fan_in
    largest = np.abs(params["c3"]["kernel"]).max((0, 1))
    first, last = 2.4 / (3 * 25), 2.4 / (6 * 25)  # the first map reads three, the last all six
    assert (0.5 * first < largest[:3]).all() and (largest[:3] <= first).all() and (largest[-6:] <= last).all()
