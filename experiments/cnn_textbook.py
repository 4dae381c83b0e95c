"""Draws what textbooks draw of the parts of convolutional networks, and prints the numbers.

python -m experiments.cnn_textbook                     # all of them
python -m experiments.cnn_textbook initialisation      # some

`activations`: all of `ops.activations` with their derivatives. `initialisation`: the size of activations and gradients
by layer, 50 convolutions deep, measured and by mean-field theory. `upsampling`: a photograph pooled, and the ways back.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.ops import resampling
from dlfx.ops.activations import ACTIVATIONS
from dlfx.ops.convolution import conv_general_dilated, conv_transpose
from dlfx.ops.pooling import avg_pool
from dlfx.ops.unpooling import max_pool_with_argmax, max_unpool
from dlfx.training import figures
from dlfx.types import Array
from experiments import studies
from experiments.studies import Found, Study

# With as many channels out as in, Xavier's variance 2 / (in + out) is LeCun's, 1 / in.
INITIALISERS: dict[str, Any] = {
    "N(0, 0.03^2)": jax.nn.initializers.normal(0.03),
    "Xavier": jax.nn.initializers.glorot_normal(),
    "He": jax.nn.initializers.he_normal(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "N(0, 0.1^2)": jax.nn.initializers.normal(0.1),
}
NORMALISED = "N(0, 0.03^2) and batch norm"


def activations() -> Found:
    """Values and slopes of every activation on [-5, 5]."""
    z = jnp.linspace(-5, 5, 401)
    found: Found = {}
    for name, f in ACTIVATIONS.items():
        a = f.value(z)
        found[name] = {"value": a.tolist(), "slope": f.slope(z, a).tolist(), "formula": f.formula}
    return {"z": z.tolist(), "by_name": found}


def draw_activations(found: Found, path: Path) -> None:
    """A panel each."""
    z, by_name = np.array(found["z"]), found["by_name"]
    columns = 7
    rows = -(-len(by_name) // columns)
    figure = figures.new_figure(2.7 * columns, 2.25 * rows)
    panels = figure.subplots(rows, columns, sharex=True).ravel()
    for axes, (name, told) in zip(panels, by_name.items(), strict=False):
        axes.axhline(0, color="black", linewidth=0.5)
        axes.axvline(0, color="black", linewidth=0.5)
        for what, color in (("slope", "#ee6677"), ("value", "#4477aa")):
            line = np.array(told[what])
            ends = np.searchsorted(z, np.array(ACTIVATIONS[name].kinks) - 1e-6) + 1  # just behind a kink
            jumps = [end for end in ends if end < len(z) and abs(line[end] - line[end - 2]) > 0.06]
            line[[end - 1 for end in jumps]] = np.nan  # no steep piece there
            axes.plot(z, line, color=color, linewidth=1.7, label="f'(z)" if what == "slope" else "f(z)")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -3), min(high, 4))
        axes.set_title(f"{name.replace('_', ' ')}\n", fontsize=10)
        axes.text(0.5, 1.03, told["formula"], fontsize=6.5, color="0.35", ha="center", transform=axes.transAxes)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    for axes in panels[len(by_name) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend(handles[::-1], labels[::-1], loc="lower right", fontsize=8)
    figure.suptitle("activations and their derivatives")
    figures.save(figure, path)


def tell_activations(found: Found) -> list[str]:
    """A line each."""
    return [
        f"{name:<21} values {min(told['value']):>6.2f} to {max(told['value']):>6.2f} on [-5, 5], steepest "
        f"{max(map(abs, told['slope'])):.2f}: {told['formula']}"
        for name, told in found["by_name"].items()
    ]


def initialisation(depth: int = 50, channels: int = 64, side: int = 8, images: int = 16) -> Found:
    """By layer, for tanh and ReLU: the size of activations and of a gradient that comes back, and what theory says.

    Convolutions 3x3 with as many channels out as in, over the edge again on the other side, of noise N(0, 1), and
    backwards of noise N(0, 1). Theory is that of infinitely many channels: `q' = v E f(sqrt(q) Z)^2` forward and
    `d = d' v E f'(sqrt(q) Z)^2` backward, with Z of N(0, 1) and v the variance of a weight times the inputs of a unit
    (Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232).
    """
    fan_in = 9 * channels
    variances = {
        "N(0, 0.03^2)": 0.03**2 * fan_in,
        "Xavier": 1.0,
        "He": 2.0,
        "orthogonal": 1.0,
        "N(0, 0.1^2)": 0.1**2 * fan_in,
    }
    found: Found = {}
    x, back = jax.random.normal(jax.random.key(0), (2, images, side, side, channels))
    keys = jax.random.split(jax.random.key(1), depth)
    for name in ("tanh", "relu"):
        run = jax.jit(_propagate, static_argnums=(3, 4))
        for label in (*INITIALISERS, NORMALISED):
            draw = INITIALISERS[label.split(" and ")[0]]
            kernels = jax.vmap(lambda key, draw=draw: draw(key, (3, 3, channels, channels)))(keys)
            std, delta = run(x, kernels, back, name, label == NORMALISED)
            told = {"std": std.tolist(), "delta": delta.tolist()}
            if label != NORMALISED:
                told |= mean_field(name, variances[label], depth)
            found[f"{name}, {label}"] = told
    return found


def _propagate(x: Array, kernels: Array, back: Array, name: str, normalise: bool) -> tuple[Array, Array]:
    """The root mean squares of a, and of the derivative by z, of every layer, `[depth]` each."""
    f = ACTIVATIONS[name].value

    def network(nudges: Array) -> tuple[Array, Array]:
        def layer(a: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            kernel, nudge = given
            wrapped = jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
            z = conv_general_dilated(wrapped, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            z += nudge
            if normalise:
                z = (z - z.mean((0, 1, 2))) * lax.rsqrt(z.var((0, 1, 2)))
            a = f(z)
            return a, jnp.sqrt((a**2).mean())

        return lax.scan(layer, x, (kernels, nudges))

    _, vjp, std = jax.vjp(network, jnp.zeros((len(kernels), *x.shape)), has_aux=True)
    return std, jnp.sqrt((vjp(back)[0] ** 2).mean((1, 2, 3, 4)))


def mean_field(name: str, variance: float, depth: int) -> Found:
    """The same of infinitely wide layers, by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)  # an even number: none at 0, where ReLU has its kink
    weights = weights / weights.sum()
    f = ACTIVATIONS[name]
    squares, slopes = [1.0], []
    for _ in range(depth):
        z = jnp.asarray(math.sqrt(variance * squares[-1]) * points)
        a = f.value(z)
        squares.append(float(weights @ np.asarray(a) ** 2))
        slopes.append(float(weights @ np.asarray(f.slope(z, a)) ** 2))
    back = slopes[-1:]
    for slope in slopes[-2::-1]:
        back.append(back[-1] * variance * slope)
    return {
        "std of theory": np.sqrt(squares[1:]).tolist(), "delta of theory": np.sqrt(back[::-1]).tolist()
    }  # fmt: skip


def draw_initialisation(found: Found, path: Path) -> None:
    """One column an activation, points measured and lines theory."""
    figure = figures.new_figure(12.0, 8.0)
    panels = figure.subplots(2, 2, sharex=True)
    says = {"std": "root mean square of a", "delta": "root mean square of dL/dz"}
    for column, name in enumerate(("tanh", "relu")):
        for label, told in found.items():
            if not label.startswith(f"{name}, "):
                continue
            for axes, what in zip(panels[:, column], says, strict=True):
                layers = range(1, len(told[what]) + 1)
                init = label.removeprefix(f"{name}, ")
                size = 9 if init == "Xavier" else 5  # orthogonal kernels lie on top of it
                (dots,) = axes.plot(layers, told[what], "o", markersize=size, markerfacecolor="none", label=init)
                if f"{what} of theory" in told:
                    axes.plot(layers, told[f"{what} of theory"], color=dots.get_color(), linewidth=1.0)
        panels[0, column].set(title=name)
        panels[1, column].set(xlabel="layer")
    for row, ylabel in zip(panels, says.values(), strict=True):
        for axes in row:
            axes.set(yscale="log", ylabel=ylabel)
            axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=9)
    figure.suptitle(
        "50 convolutions before training: circles measured with 64 channels, lines theory of infinitely many"
    )
    figures.save(figure, path)


def tell_initialisation(found: Found) -> list[str]:
    """A line each: activations in the last layer, gradients in the first."""
    lines = []
    for label, told in found.items():
        line = f"{label:<34} a {told['std'][-1]:.1e} in the last layer, dL/dz {told['delta'][0]:.1e} in the first"
        if "std of theory" in told:
            line += f" (theory {told['std of theory'][-1]:.1e} and {told['delta of theory'][0]:.1e})"
        lines.append(line)
    return lines


def upsampling(factor: int = 4) -> Found:
    """A photograph pooled by 4 and brought back, with the root mean square of what is wrong then."""
    image = photograph()
    largest, places = max_pool_with_argmax(image, factor)
    mean = avg_pool(image, factor)
    size = image.shape[1], image.shape[2]

    def transposed(side: int, taps: np.ndarray) -> Array:
        kernel = np.outer(taps, taps) * factor**2 / taps.sum() ** 2
        return conv_transpose(
            mean, jnp.asarray(kernel[:, :, None, None], jnp.float32), (factor,) * 2, (side - factor) // 2
        )

    tent = 1 - abs(np.arange(2 * factor) - factor + 0.5) / factor  # the bilinear kernel
    ways = {
        "the image": image,
        "maxima": largest,
        "means": mean,
        "maxima, unpooled": max_unpool(largest, places, size),
        "maxima, nearest": resampling.resize_nearest(largest, size),
        "means, nearest": resampling.resize_nearest(mean, size),
        "means, bilinear": resampling.resize_bilinear(mean, size),
        "means, transposed convolution\n8x8, stride 4, a tent": transposed(2 * factor, tent),
        "means, transposed convolution\n6x6, stride 4, flat: uneven overlap": transposed(6, np.ones(6)),
    }
    return {
        label: {
            "image": np.asarray(way)[0, :, :, 0].tolist(),
            "error": float(jnp.sqrt(((way - image) ** 2).mean())) if way.shape == image.shape else None,
        }
        for label, way in ways.items()
    }


def photograph() -> Array:
    """128x128 grey pixels of scikit-learn's picture of a temple, `[1, 128, 128, 1]` from 0 to 1."""
    from sklearn.datasets import load_sample_image

    grey = load_sample_image("china.jpg")[40:296, 150:406].mean(-1, keepdims=True) / 255
    return avg_pool(jnp.asarray(grey[None], jnp.float32), 2)


def draw_upsampling(found: Found, path: Path) -> None:
    """A panel each, with the error under its name."""
    figure = figures.new_figure(11.5, 12.6)
    for axes, (label, told) in zip(figure.subplots(3, 3).ravel(), found.items(), strict=True):
        axes.imshow(told["image"], cmap="gray", vmin=0, vmax=1)
        error = "" if told["error"] is None or label == "the image" else f"; error {told['error']:.3f}"
        axes.set_title(f"{label}{error}", fontsize=11)
        axes.set_axis_off()
    figure.suptitle("pooled by 4, and the ways back")
    figures.save(figure, path)


def tell_upsampling(found: Found) -> list[str]:
    """A line a way back."""
    return [
        f"{label.replace(chr(10), ' ')}: error {told['error']:.4f}"
        for label, told in found.items()
        if told["error"] is not None
    ]


STUDIES: dict[str, Study] = {
    "activations": (activations, draw_activations, tell_activations),
    "initialisation": (initialisation, draw_initialisation, tell_initialisation),
    "upsampling": (upsampling, draw_upsampling, tell_upsampling),
}


def main() -> None:
    """Runs the studies named on the command line."""
    studies.run("cnn_textbook", __doc__, STUDIES)


if __name__ == "__main__":
    main()
