"""A network cut in two at one of its named intermediate results, without a word in the network about it."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from dlfx.types import Array, unknown


def cut(
    network: Callable[[Array], tuple[Any, dict[str, Array]]], images: Array, name: str
) -> tuple[Array, Callable[[Array], Any]]:
    """The intermediate result of that name, and the rest of the network as a function of it alone.

    The network is traced, and the result of one operation is then taken from an argument instead. With
    `value, rest = cut(network, images, name)`, `rest(value)` equals `network(images)[0]`, and `jax.grad` of `rest` is
    the gradient at that place. What goes around the place, such as a shortcut, is computed from the same images.

    Args:
      network: images to (outputs, named intermediate results that the outputs are made of).
      images: of the call.
      name: of the result.

    Returns:
      (The result, a function of another value of its shape to the outputs). Inside jit both share their work.

    Raises:
      UserError: there is no such result, or it is none of an operation (the images themselves).
    """
    traced, shapes = jax.make_jaxpr(network, return_shape=True)(images)
    if name not in shapes[1]:
        raise unknown("intermediate result", name, shapes[1])
    results = jax.tree.unflatten(jax.tree.structure(shapes), traced.jaxpr.outvars)
    place = results[1][name]
    if not any(place in equation.outvars for equation in traced.eqns):
        raise unknown("intermediate result", name, [n for n in shapes[1] if n != name])
    value = core.jaxpr_as_fun(traced)(*jax.tree.leaves(images))[traced.jaxpr.outvars.index(place)]
    alike = jax.make_jaxpr(lambda images, value: network(images)[0])(images, value)  # for the names in its messages
    tail = traced.jaxpr.replace(
        invars=[*traced.jaxpr.invars, place],
        eqns=[equation for equation in traced.eqns if place not in equation.outvars],
        outvars=jax.tree.leaves(results[0]),
        debug_info=alike.jaxpr.debug_info,
    )
    rest = core.jaxpr_as_fun(core.ClosedJaxpr(tail, traced.consts))
    outputs = jax.tree.structure(shapes[0])
    return value, lambda changed: jax.tree.unflatten(outputs, rest(*jax.tree.leaves(images), changed))
