"""Receptive fields of any network: which rows of the image each of its intermediate results depends on.

A function is traced, and its operations are followed with intervals in place of numbers: of every element the first
and the last row (or column) of the image that it can depend on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from dlfx.types import UserError

NOWHERE = 1 << 40  # low of an element that depends on nothing; its high is minus this
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # what the parameters of operations call the function inside
REDUCTIONS = ("reduce_", "argmax", "argmin")


class Interval(NamedTuple):
    """The lines of the image that elements depend on, arrays of an element's rank, of size 1 where all are alike."""

    low: np.ndarray
    high: np.ndarray


def receptive_fields(f: Callable[..., Sequence[Any]], *arguments: Any, image: int = 0, axis: int = 1) -> list[Interval]:
    """For each result of f the lines that its elements depend on; an interval that is nowhere for one of no image.

    Args:
      f: from arguments to arrays.
      arguments: arrays, or their shapes and types.
      image: which argument is the image.
      axis: the axis of that argument whose lines are meant.

    Raises:
      UserError: for an operation that is none of those of convolutional networks.
    """
    traced = jax.make_jaxpr(f)(*arguments)
    leaves, tree = jax.tree.flatten(arguments)
    which = jax.tree.unflatten(tree, range(len(leaves)))[image]
    shape = leaves[which].shape
    lines = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    given = [Interval(lines, lines) if i == which else None for i in range(len(leaves))]
    found = _follow(traced.jaxpr, [None] * len(traced.consts), given)
    ranks = [len(value.aval.shape) for value in traced.jaxpr.outvars]
    return [_nowhere(rank) if interval is None else interval for interval, rank in zip(found, ranks, strict=True)]


def central(interval: Interval, axis: int) -> tuple[int, int]:
    """(Lines that the element in the middle of an axis sees, and how far apart those of neighbours begin or end).

    The second is 0 where all see the whole image.
    """
    low, high = (np.moveaxis(bound, axis, 0) for bound in np.broadcast_arrays(*interval))
    low, high = low.reshape(len(low), -1).min(1), high.reshape(len(high), -1).max(1)
    middle = (len(low) - 1) // 2
    steps = np.concatenate([[0], np.diff(low), np.diff(high)])  # those at the edges are cut short, or none
    return int(high[middle] - low[middle] + 1), int(steps.max())


def _follow(jaxpr: Any, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given], strict=True))

    def read(value: Any) -> Any:
        return None if isinstance(value, core.Literal) else known.get(value)

    for equation in jaxpr.eqns:
        operands = [read(value) for value in equation.invars]
        results = [None] * len(equation.outvars)
        if any(operand is not None for operand in operands):
            results = _apply(equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(value) for value in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    shapes = [value.aval.shape for value in equation.invars]
    outs = [value.aval.shape for value in equation.outvars]
    if name == "scan":
        return _scan(operands, outs, params)
    for key in CALLS:
        if key in params:
            inner = params[key]
            consts = getattr(inner, "consts", [])
            return _follow(getattr(inner, "jaxpr", inner), [None] * len(consts), operands)
    if name == "cond":
        return _follow(params["branches"][-1].jaxpr, [], operands[1:])
    if name == "optimization_barrier":
        return operands
    if name in RULES:
        return [RULES[name](operands, shapes, outs[0], params)]
    if name.startswith(REDUCTIONS):
        return [_reduced(operands[0], params["axes"])] * len(outs)
    if all(out == outs[0] for out in outs) and all(len(shape) in (0, len(outs[0])) for shape in shapes):
        return [_union(operands)] * len(outs)
    raise UserError(f"receptive fields cannot be followed through {name}")


def _scan(operands: list[Any], outs: list[Any], params: dict[str, Any]) -> list[Any]:
    """Of `lax.map`, such as over groups: each result as one that depends on what any of the rows does."""
    if params["num_carry"]:
        raise UserError("receptive fields cannot be followed through a scan with a carry")
    rows = [
        operand if operand is None or i < params["num_consts"] else _reduced(operand, (0,))
        for i, operand in enumerate(operands)
    ]
    found = _follow(params["jaxpr"].jaxpr, [None] * len(params["jaxpr"].consts), rows)
    return [interval and _each(interval, lambda bound: bound[None]) for interval in found]


def _nowhere(rank: int) -> Interval:
    return Interval(np.full((1,) * rank, NOWHERE), np.full((1,) * rank, -NOWHERE))


def _union(intervals: Sequence[Any]) -> Interval:
    there = [interval for interval in intervals if interval is not None]
    low, high = there[0]
    for other in there[1:]:
        low, high = np.minimum(low, other.low), np.maximum(high, other.high)
    return Interval(low, high)


def _reduced(interval: Interval, axes: Sequence[int]) -> Interval:
    return Interval(interval.low.min(tuple(axes)), interval.high.max(tuple(axes)))


def _each(interval: Interval, f: Callable[[np.ndarray], np.ndarray]) -> Interval:
    return Interval(f(interval.low), f(interval.high))


def _compressed(bound: np.ndarray) -> np.ndarray:
    for axis, size in enumerate(bound.shape):
        first = bound.take([0], axis)
        if size > 1 and (bound == first).all():
            bound = first
    return bound


def _reshape(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    shape = shapes[0]

    def move(bound: np.ndarray) -> np.ndarray:
        kept = len(shape) > 0 < len(out) and shape[-1] == out[-1] and bound.shape[-1] == 1  # channels, all alike
        whole, target = (shape[:-1], out[:-1]) if kept else (shape, out)
        bound = np.broadcast_to(bound[..., 0] if kept else bound, whole).reshape(target)
        return _compressed(bound[..., None] if kept else bound)

    return _each(operands[0], move)


def _broadcast(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    shape = [1] * len(out)

    def move(bound: np.ndarray) -> np.ndarray:
        placed = list(shape)
        for axis, size in zip(params["broadcast_dimensions"], bound.shape, strict=True):
            placed[axis] = size
        return bound.reshape(placed)

    return _each(operands[0], move)


def _slice(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    strides = params["strides"] or (1,) * len(out)
    places = list(zip(params["start_indices"], params["limit_indices"], strides, strict=True))

    def cut(bound: np.ndarray) -> np.ndarray:
        return bound[
            tuple(slice(*place) if size > 1 else slice(None) for place, size in zip(places, bound.shape, strict=True))
        ]

    return _each(operands[0], cut)


def _pad(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    config = params["padding_config"]

    def grow(bound: np.ndarray, fill: int) -> np.ndarray:
        # Channels that are new, all zeros, are passed over: what stands beside them is what matters.
        axes = [a for a, (low, high, inner) in enumerate(config) if (low or high or inner) and a < len(config) - 1]
        size = [shapes[0][a] if a in axes else bound.shape[a] for a in range(bound.ndim)]
        bound = np.broadcast_to(bound, size)
        for a in axes:
            low, high, inner = config[a]
            length = bound.shape[a] + (bound.shape[a] - 1) * inner
            spread = np.full([length if i == a else n for i, n in enumerate(bound.shape)], fill)
            spread[tuple(slice(None, None, inner + 1) if i == a else slice(None) for i in range(bound.ndim))] = bound
            edges = [(max(low, 0), max(high, 0)) if i == a else (0, 0) for i in range(bound.ndim)]
            bound = np.pad(spread, edges, constant_values=fill)
            stop = bound.shape[a] + min(high, 0)
            bound = bound.take(range(-min(low, 0), stop), a)
        return bound

    return Interval(grow(operands[0].low, NOWHERE), grow(operands[0].high, -NOWHERE))


def _concatenate(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    axis = params["dimension"]
    pieces = [_nowhere(len(out)) if operand is None else operand for operand in operands]

    def join(bounds: list[np.ndarray]) -> np.ndarray:
        sizes = [max(bound.shape[i] for bound in bounds) for i in range(len(out))]
        wide = [
            np.broadcast_to(bound, [shape[i] if i == axis else size for i, size in enumerate(sizes)])
            for bound, shape in zip(bounds, shapes, strict=True)
        ]
        return _compressed(np.concatenate(wide, axis))

    return Interval(join([piece.low for piece in pieces]), join([piece.high for piece in pieces]))


def _stack(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    axis = params["axis"]
    grown = [operand and _each(operand, lambda bound: np.expand_dims(bound, axis)) for operand in operands]
    wide = [(*shape[:axis], 1, *shape[axis:]) for shape in shapes]
    return _concatenate(grown, wide, out, {"dimension": axis})


def _dot(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    contracted, batched = params["dimension_numbers"]
    free = [
        [axis for axis in range(len(shape)) if axis not in (*gone, *kept)]
        for shape, gone, kept in zip(shapes, contracted, batched, strict=True)
    ]
    parts = []
    for side, operand in enumerate(operands):
        if operand is None:
            continue
        order, count = [*batched[side], *free[side], *contracted[side]], len(batched[side])
        others = [1] * len(free[1 - side])  # the axes that only the other operand has

        def place(
            bound: np.ndarray, order: Any = order, count: int = count, side: int = side, others: Any = others
        ) -> Any:
            sizes = [bound.shape[axis] for axis in order[: count + len(free[side])]]
            kept, own = sizes[:count], sizes[count:]
            return bound.transpose(order).reshape([*kept, *others, *own] if side else [*kept, *own, *others])

        parts.append(_each(_reduced_to_one(operand, tuple(contracted[side])), place))
    return _union(parts)


def _windows(
    interval: Interval, shape: Sequence[int], axis: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> Interval:
    """Windows over one axis; their elements in the padding are nowhere."""
    if interval.low.shape[axis] == interval.high.shape[axis] == 1:
        return interval
    reach = (kernel - 1) * dilation + 1
    count = (shape[axis] + sum(pads) - reach) // stride + 1
    places = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - pads[0]
    inside = (places >= 0) & (places < shape[axis])
    chosen = places.clip(0, shape[axis] - 1)

    def over(bound: np.ndarray, fill: int, reduce: Any) -> np.ndarray:
        full = [shape[axis] if i == axis else size for i, size in enumerate(bound.shape)]
        last = np.moveaxis(np.broadcast_to(bound, full), axis, -1)
        return np.moveaxis(reduce(np.where(inside, last[..., chosen], fill), -1), -1, axis)

    return Interval(over(interval.low, NOWHERE, np.min), over(interval.high, -NOWHERE, np.max))


def _convolution(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    spec = params["dimension_numbers"]
    lhs, rhs = spec.lhs_spec, spec.rhs_spec
    found = _reduced_to_one(operands[0], (lhs[1],))
    shape = list(shapes[0])
    for place, (axis, kernel_axis) in enumerate(zip(lhs[2:], rhs[2:], strict=True)):
        if params["lhs_dilation"][place] != 1:
            raise UserError("receptive fields of transposed convolutions are not followed")
        options = params["window_strides"][place], params["padding"][place], params["rhs_dilation"][place]
        found = _windows(found, shape, axis, shapes[1][kernel_axis], *options)
    return _each(found, lambda bound: bound.transpose([lhs[spec.out_spec.index(i)] for i in range(bound.ndim)]))


def _unit_stride(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    """Our own convolution of stride 1, see `ops.convolution`."""
    found = _reduced_to_one(operands[0], (3,))
    for axis in (1, 2):
        pad = params["padding"][axis - 1]
        found = _windows(found, shapes[0], axis, shapes[1][axis - 1], 1, (pad, pad), 1)
    return found


def _depthwise(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    found = operands[0]
    for axis in (1, 2):
        found = _windows(found, shapes[0], axis, shapes[1][axis - 1], params["strides"][axis - 1], (0, 0), 1)
    return found


def _reduced_to_one(interval: Interval, axes: tuple[int, ...]) -> Interval:
    return Interval(interval.low.min(axes, keepdims=True), interval.high.max(axes, keepdims=True))


def _reduce_window(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    found = operands[0]
    for axis, kernel in enumerate(params["window_dimensions"]):
        if kernel > 1:
            options = params["window_strides"][axis], params["padding"][axis], params["window_dilation"][axis]
            found = _windows(found, shapes[0], axis, kernel, *options)
    return found


def _transpose(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    return _each(operands[0], lambda bound: bound.transpose(params["permutation"]))


def _reverse(operands: Any, shapes: Any, out: Any, params: Any) -> Interval:
    return _each(operands[0], lambda bound: np.flip(bound, params["dimensions"]))


RULES: dict[str, Callable[[Any, Any, Any, Any], Interval]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "unit_stride_convolution": _unit_stride,
    "depthwise_convolution": _depthwise,
    "transpose": _transpose,
    "rev": _reverse,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "reduce_window_sum": _reduce_window,
}
