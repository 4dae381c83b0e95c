"""Convolution arithmetic: against XLA's own shapes, real parameters, and where the notes' formulas fail."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from dlfx.nn.convolution import Conv
from dlfx.ops import arithmetic
from dlfx.ops.arithmetic import Window, effective_kernel, multiply_adds, output_size, parameters, receptive_field
from dlfx.types import UserError


def test_output_sizes_are_xlas() -> None:
    for size, kernel, stride, padding, dilation in itertools.product((7, 12), (1, 2, 3, 5), (1, 2, 3), (0, 2), (1, 2)):
        window = Window(kernel, stride, padding, dilation)
        shape = jax.eval_shape(
            lambda x, w, s=stride, p=padding, d=dilation: lax.conv_general_dilated(
                x, w, (s,), [(p, p)], rhs_dilation=(d,)
            ),
            jnp.zeros((1, 1, size)),
            jnp.zeros((1, 1, kernel)),
        ).shape
        if shape[2]:
            assert output_size(size, window) == shape[2]
        grown = arithmetic.transposed_output_size(size, window._replace(padding=0))
        assert grown == (size - 1) * stride + effective_kernel(kernel, dilation)
        assert output_size(grown, window._replace(padding=0)) == size  # a transposed convolution restores the size


def test_ceil_mode_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for size, kernel, stride, padding in itertools.product(range(4, 13), (2, 3), (1, 2, 3), (0, 1)):
        pooled = torch.nn.functional.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode=True)
        assert output_size(size, Window(kernel, stride, padding), ceil_mode=True) == pooled.shape[2]


def test_the_notes_receptive_fields() -> None:
    """001:80 mixes the forward with the backward recursion (E1), 002:37 is right if the product stops at t - 1 (E2)."""

    def note_001(windows: list[Window]) -> int:
        field, stride = 1, 1
        for window in windows:
            field, stride = (field - 1) * stride + window.kernel, window.stride
        return field

    def note_002(windows: list[Window], up_to: int) -> int:
        field = 1
        for i, window in enumerate(windows):
            field += (window.kernel - 1) * math.prod(w.stride for w in windows[: i + up_to])
        return field

    uneven = [Window(7, 2), Window(3, 2)]
    assert receptive_field(uneven).size == arithmetic.receptive_field_backward(uneven) == 11
    assert note_001(uneven) == 15 and note_002(uneven, 0) == 11
    one = [Window(3, 2)]
    assert receptive_field(one).size == note_002(one, 0) == 3 and note_002(one, 1) == 5
    threes = [Window(3, 2)] * 4
    assert receptive_field(threes).size == note_001(threes)  # by accident, where all kernels are 3 and all strides 2
    for windows in itertools.product([Window(1), Window(3, 2, 1), Window(2, 1, 0, 3)], repeat=3):
        assert receptive_field(windows).size == arithmetic.receptive_field_backward(windows)


def test_fields_begin_where_padding_says() -> None:
    field = receptive_field([Window(3, 2, 1), Window(5, 1, 2)])
    assert field == (11, 2, -5)


def test_ways_to_see_more() -> None:
    plain = receptive_field([Window(3), Window(3)]).size
    assert plain == 5 == receptive_field([Window(5)]).size
    for wider in (
        [Window(5), Window(3)],
        [Window(3)] * 3,
        [Window(2, 2), Window(3), Window(3)],
        [Window(3, dilation=2)] * 2,
    ):
        assert receptive_field(wider).size > plain


def test_what_small_kernels_cost() -> None:
    """E42: two 3x3 need fewer multiply-adds than a 5x5, 18 against 25; what grows is the memory of activations."""
    assert 2 * multiply_adds((3, 3), 1, 1, (1, 1)) == 18 and multiply_adds((5, 5), 1, 1, (1, 1)) == 25
    assert 3 * parameters((3, 3), 8, 8, bias=False) == 27 * 64 and parameters((7, 7), 8, 8, bias=False) == 49 * 64
    two, one = arithmetic.activation_bytes([(8, 8, 4)] * 2), arithmetic.activation_bytes([(8, 8, 4)])
    assert two == 2 * one == 2 * 4 * 256
    separable = parameters((3, 3), 128, 128, 128, bias=False) + parameters((1, 1), 128, 128, bias=False)
    assert separable / parameters((3, 3), 128, 128, bias=False) == pytest.approx(1 / 128 + 1 / 9)  # 0.1189


def test_parameters_are_those_of_layers() -> None:
    """E3: groups divide the parameters too. E13: a kernel moves H_out W_out times."""
    for groups, weights in ((1, 73_728), (2, 36_864), (4, 18_432)):
        layer = Conv(128, (3, 3), feature_group_count=groups, use_bias=False)
        tree = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 8, 8, 64)))
        assert sum(x.size for x in jax.tree.leaves(tree)) == weights == parameters((3, 3), 64, 128, groups, bias=False)
        assert multiply_adds((3, 3), 64, 128, (8, 8), groups) == 64 * weights


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: output_size(5, Window(3, 0)), "stride and dilation are at least 1"),
        (lambda: output_size(5, Window(3, dilation=3)), "a window of 7 does not fit into 5 elements"),
        (lambda: parameters((3, 3), 4, 6, 3), "3 groups do not divide 4 channels into 6 features"),
        (lambda: arithmetic.transposed_output_size(3, Window(3, 2), 2), "an output padding of 2 must be below"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()
