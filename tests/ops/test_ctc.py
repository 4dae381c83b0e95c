"""CTC against sums over all paths, and against PyTorch."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.ops.ctc import Alignment, check_feasible, ctc_align, ctc_loss
from dlfx.types import UserError
from tests.compiling import quick

# label, frames: no symbol, one, repeats, more room than needed, just enough, too little
CASES = [
    ((), 3),
    ((1,), 1),
    ((2, 1), 4),
    ((1, 1), 3),
    ((1, 1, 2), 5),
    ((2, 2, 2), 5),
    ((1, 1), 2),
    ((1, 2), 0),
    ((), 0),
]
FRAMES, CLASSES, LONGEST = 5, 3, 3


def reading(path: Any, blank: int = 0) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def all_paths(logits: np.ndarray, label: tuple[int, ...], blank: int = 0) -> tuple[float, np.ndarray, Any]:
    """The probability of a label, how often it says what `[T, K]`, and its best path with its probability."""
    probs = np.exp(log_softmax(logits))
    total, expected, best = 0.0, np.zeros_like(probs), ((), 0.0)
    for path in itertools.product(range(probs.shape[1]), repeat=len(probs)):
        if reading(path, blank) == label:
            p = float(np.prod(probs[np.arange(len(probs)), list(path)]))
            total += p
            expected[np.arange(len(probs)), list(path)] += p
            best = max(best, (path, p), key=lambda pair: pair[1])
    return total, expected, best


def batch_of_cases() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Padded with what must not matter."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(len(CASES), FRAMES, CLASSES))
    labels = rng.integers(-7, 7, (len(CASES), LONGEST)).astype(np.int32)
    for row, (label, frames) in enumerate(CASES):
        labels[row, : len(label)] = label
        logits[row, frames:] = [np.nan, np.inf, 1e9]
    sizes, frames = zip(*[(len(label), frames) for label, frames in CASES], strict=True)
    return logits, np.array(frames, np.int32), labels, np.array(sizes, np.int32)


def test_loss_and_gradient_equal_the_sum_over_all_paths() -> None:
    logits, frames, labels, sizes = batch_of_cases()
    with jax.enable_x64(True):
        loss = quick(ctc_loss)(logits, frames, labels, sizes)
        gradient = quick(jax.grad(lambda x: ctc_loss(x, frames, labels, sizes).sum()))(logits)
        zeroed = quick(partial(ctc_loss, zero_infinity=True))(logits, frames, labels, sizes)
    assert loss.dtype == gradient.dtype == jnp.float64
    for row, (label, length) in enumerate(CASES):
        x = logits[row, :length]
        total, expected, _ = all_paths(x, label)
        slope = np.exp(log_softmax(x)) - expected / total if total else np.zeros_like(x)
        np.testing.assert_allclose(loss[row], -np.log(total) if total else np.inf, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(gradient[row, :length], slope, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(gradient[row, length:], 0)
    np.testing.assert_array_equal(zeroed, np.where(np.isinf(loss), 0, loss))
    assert np.isinf(loss[6]) and np.isinf(loss[7])


def test_another_blank_and_classes_that_cannot_be() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 4, 3))
    logits[0, 1, 0] = logits[1, :, 1] = -np.inf  # the label (0, 1) becomes impossible in row 1
    labels = np.array([[0, 1], [0, 1]], np.int32)
    with jax.enable_x64(True):
        loss, gradient = quick(
            lambda x: (
                ctc_loss(x, None, labels, None, 2),
                jax.grad(lambda x: ctc_loss(x, None, labels, None, 2).sum())(x),
            )
        )(logits)
    total, expected, _ = all_paths(logits[0], (0, 1), blank=2)
    np.testing.assert_allclose(loss, [-np.log(total), np.inf], rtol=1e-10)
    np.testing.assert_allclose(gradient[0], np.exp(log_softmax(logits[0])) - expected / total, atol=1e-12)
    np.testing.assert_array_equal(gradient[1], 0)


def test_a_batch_of_empty_labels() -> None:
    x, empty = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32), np.zeros((2, 0), np.int32)
    loss, gradient = quick(jax.value_and_grad(lambda x: ctc_loss(x, None, empty, None).sum()))(x)
    np.testing.assert_allclose(loss, -log_softmax(x)[..., 0].sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(x)) - [1, 0, 0], atol=1e-6)
    assert (quick(ctc_align)(x, None, empty, None).positions == -1).all()


def test_higher_derivatives() -> None:
    """Of the gradient by finite differences, and where all is equal, so that every sum meets ties."""
    labels = np.array([[1, 1, 2]], np.int32)
    with jax.enable_x64(True):
        f = lambda x: ctc_loss(x.reshape(1, 5, 3), None, labels, None)[0]  # noqa: E731
        slope, curvature = quick(jax.grad(f)), quick(jax.hessian(f))
        for x in (np.zeros(15), np.random.default_rng(0).normal(size=15)):
            steps = 1e-5 * np.eye(15)
            numeric = np.stack([(slope(x + step) - slope(x - step)) / 2e-5 for step in steps])
            np.testing.assert_allclose(curvature(x), numeric, atol=1e-9)


def random_batch(dtype: Any, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = rng.integers(1, 4, (4, 6)).astype(np.int32)  # of few symbols, so with repeats
    frames, sizes = np.array([30, 25, 14, 20], np.int32), np.array([6, 3, 6, 0], np.int32)
    return (scale * rng.normal(size=(4, 30, 5))).astype(dtype), frames, labels, sizes


def by_torch(x: np.ndarray, frames: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, requires_grad=True)
    lengths = torch.tensor(frames), torch.tensor(sizes)
    log_probs = leaf.log_softmax(-1).transpose(0, 1)
    loss = torch.nn.functional.ctc_loss(log_probs, torch.tensor(labels), *lengths, reduction="none")
    loss.sum().backward()
    return loss.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_equals_pytorch(dtype: Any, tolerance: float) -> None:
    x, *rest = random_batch(dtype, 3.0)
    expected, slope = by_torch(x, *rest)

    @quick
    def run(x: jax.Array) -> Any:
        loss, vjp = jax.vjp(lambda x: ctc_loss(x, *rest), x)
        return loss, vjp(jnp.ones_like(loss))[0]

    with jax.enable_x64(dtype == np.float64):
        loss, gradient = run(x)
    assert loss.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(loss, expected, rtol=tolerance)
    np.testing.assert_allclose(gradient, slope, atol=10 * tolerance)


def test_float32_keeps_more_digits_than_optax() -> None:
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(2, 400, 6)).astype(np.float32), rng.integers(1, 6, (2, 40)).astype(np.int32)
    none = np.zeros((2, 400), np.float32), np.zeros((2, 40), np.float32)

    def ours(x: jax.Array) -> jax.Array:
        return ctc_loss(x, None, labels, None).sum()

    def theirs(x: jax.Array) -> jax.Array:
        return optax.ctc_loss(x, none[0], labels, none[1]).sum()

    with jax.enable_x64(True):
        exact = np.asarray(quick(jax.grad(ours))(x.astype(np.float64)))
    errors = [np.abs(quick(jax.grad(f))(x) - exact).max() for f in (ours, theirs)]
    assert errors[0] < 2e-5 and errors[0] < errors[1] / 4, errors


def test_a_certain_label_costs_nothing_and_never_less() -> None:
    """All paths read as the label, so that the sum of their probabilities rounds to both sides of 1."""
    x = np.full((256, 6, 3), -60, np.float32)
    x[..., 1] = 0
    x[:, [0, -1], :2] = np.random.default_rng(0).normal(size=(256, 2, 2))
    label = np.ones((256, 1), np.int32)
    loss = quick(ctc_loss)(x, None, label, None)
    assert (loss >= 0).all() and (loss < 1e-6).all()
    theirs = quick(optax.ctc_loss)(x, np.zeros((256, 6), np.float32), label, np.zeros((256, 1), np.float32))
    assert (theirs < 0).any()  # when it no longer is, one reason for ours has gone


def test_extreme_logits_and_bfloat16() -> None:
    labels = np.array([[1, 2]], np.int32)
    run = quick(jax.value_and_grad(lambda x: ctc_loss(x, None, labels, None).sum()))
    for scale in (1e3, 1e4, 1e8):  # the label's probability underflows at every frame
        x = np.zeros((1, 6, 4), np.float32)
        x[..., 3] = scale
        loss, gradient = run(x)
        np.testing.assert_allclose(loss, 6 * scale - np.log(70), rtol=2e-7)  # as many paths as 4 blanks or repeats of 8
        np.testing.assert_allclose(gradient[..., 3], 1)
        np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-6)
    x[0, 2, 0] = np.nan
    assert np.isnan(run(x)[0])
    loss, gradient = jax.eval_shape(run, jnp.zeros((1, 6, 4), jnp.bfloat16))
    assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16


def test_a_population_in_a_scan_gives_what_each_gives_alone() -> None:
    x, frames, labels, sizes = random_batch(np.float32)
    value = jax.value_and_grad(lambda x: ctc_loss(x, frames, labels, sizes).mean())

    @quick
    def run(xs: jax.Array) -> Any:
        return jax.lax.scan(lambda total, x: (total + 1, jax.vmap(value)(x)), 0, xs)[1]

    xs = np.stack([x, -x, 2 * x, x + 1]).reshape(2, 2, *x.shape)
    losses, gradients = run(xs)
    alone = quick(value)
    for i in np.ndindex(2, 2):
        loss, gradient = alone(xs[i])
        np.testing.assert_allclose(losses[i], loss, rtol=1e-6)
        np.testing.assert_allclose(gradients[i], gradient, atol=1e-6)


def test_alignment_is_the_best_of_all_paths() -> None:
    logits, frames, labels, sizes = batch_of_cases()
    with jax.enable_x64(True):
        aligned: Alignment = jax.device_get(quick(ctc_align)(logits, frames, labels, sizes))
    assert aligned.symbols.dtype == aligned.positions.dtype == jnp.int32
    for row, (label, length) in enumerate(CASES):
        _, _, (path, p) = all_paths(logits[row, :length], label)
        assert aligned.symbols[row].tolist() == [*path] + [0] * (FRAMES - len(path))
        np.testing.assert_allclose(aligned.score[row], np.log(p) if p else -np.inf, rtol=1e-10, atol=1e-14)
        positions = aligned.positions[row]
        assert [label[i] if i >= 0 else 0 for i in positions] == aligned.symbols[row].tolist()
        assert sorted(set(positions.tolist()) - {-1}) == (list(range(len(label))) if p else [])
        assert (np.diff(positions[positions >= 0]) >= 0).all()


def test_alignment_breaks_ties_early() -> None:
    aligned = quick(ctc_align)(np.zeros((1, 5, 3), np.float32), None, np.array([[1, 1]]), None)
    assert aligned.positions[0].tolist() == [0, -1, 1, -1, -1]


def test_the_host_refuses_what_no_path_reads_as() -> None:
    labels = np.array([[1, 2, 3], [2, 2, 9]])
    check_feasible(labels, [3, 2], [3, 3], num_classes=4)
    check_feasible(labels, None, [3, 4])
    with pytest.raises(UserError, match="label 1 has 2 symbols and 1 repeats, so it needs 3 frames; there are 2"):
        check_feasible(labels, [3, 2], [3, 2])
    with pytest.raises(UserError, match="label 1 holds 9; symbols are 0 to 3"):
        check_feasible(labels, None, [8, 8], num_classes=4)
    with pytest.raises(UserError, match="label 0 holds the blank, 3"):
        check_feasible(labels, None, [8, 8], blank=3)
