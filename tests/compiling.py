"""What tests compile with that run for less time than they compile."""

import contextlib
import functools

import jax


@functools.cache
def hurried():
    """The options for less care."""
    known, more = {"xla_backend_optimization_level": 0}, {"xla_cpu_use_fusion_emitters": False}
    with contextlib.suppress(Exception):  # not every version of XLA has the second, which halves the time
        jax.jit(lambda x: x + 1, compiler_options=known | more)(0)
        return known | more
    return known


def quick(function):
    """The function, compiled with less care."""
    return jax.jit(function, compiler_options=hurried())
