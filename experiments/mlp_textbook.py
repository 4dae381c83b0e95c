"""Draws what textbooks draw of gradient descent and back-propagation, and prints the numbers.

python -m experiments.mlp_textbook                         # all of them
python -m experiments.mlp_textbook optimizers vanishing    # some

`optimizers`: paths on Rosenbrock's and Beale's functions and a saddle, each at its best rate. `vanishing`: gradients by
layer, 50 deep, for activations and initialisers. `variance`: of the gradient of a batch, by its size. `landscape`:
the loss around where batch, mini-batch and stochastic descent went.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import flatten_util

from dlfx.data import sources
from dlfx.ops import backprop
from dlfx.ops.surfaces import SURFACES, Surface
from dlfx.training import figures
from dlfx.types import Array
from experiments import studies
from experiments.studies import Found, Study

RULES: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "nesterov": lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
}
RATES = tuple(float(rate) for rate in np.geomspace(1e-5, 100.0, 22))  # three to a decade
INITIALISERS = {"N(0, 0.01^2)": "normal:0.01", "Xavier": "xavier", "He": "he", "N(0, 1)": "normal:1"}


def distance(surface: Surface, points: Any) -> Array:
    """From points `[..., 2]` to the nearest minimum, `[...]`."""
    return jnp.linalg.norm(jnp.asarray(points)[..., None, :] - jnp.asarray(surface.minima), axis=-1).min(-1)


def paths(surface: Surface, name: str, rates: Array, steps: int) -> np.ndarray:
    """The points of an optimizer from the surface's start, `[rates, steps + 1, 2]`, for all rates in one program."""
    start = jnp.asarray(surface.start)

    def run(rate: Array) -> Array:
        rule = RULES[name](rate)

        def body(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
            x, state = carry
            updates, state = rule.update(jax.grad(surface.value)(x), state, x)
            return (optax.apply_updates(x, updates), state), x

        (last, _), path = jax.lax.scan(body, (start, rule.init(start)), None, steps)
        return jnp.concatenate([path, last[None]])

    return np.asarray(jax.jit(jax.vmap(run))(rates))


def optimizers(steps: int = 500) -> Found:
    """Each surface and optimizer: of the `RATES` that stay in the surface's box the one that ends nearest."""
    found: Found = {}
    for place, surface in SURFACES.items():
        found[place] = {}
        for name in RULES:
            tried = paths(surface, name, jnp.asarray(RATES), steps)
            away = np.asarray(distance(surface, tried))
            box = np.array(surface.box).reshape(2, 2)
            inside = ((tried >= box[:, 0]) & (tried <= box[:, 1])).all((1, 2))
            best = int(np.where(inside, away[:, -1], np.inf).argmin())
            found[place][name] = {
                "rate": RATES[best], "distance": float(away[best, -1]), "path": tried[best].tolist()
            }  # fmt: skip
    return found


def draw_optimizers(found: Found, path: Path) -> None:
    """Contours with the paths, and below the distance to the nearest minimum by step."""
    figure = figures.new_figure(15.5, 9.5)
    rows = figure.subplots(2, len(found), height_ratios=(1.6, 1))
    for above, below, (place, by_name) in zip(*rows, found.items(), strict=True):
        surface = SURFACES[place]
        left, right, bottom, top = surface.box
        x, y = np.meshgrid(np.linspace(left, right, 241), np.linspace(bottom, top, 241))
        height = np.log10(np.asarray(surface.value(jnp.asarray(np.stack([x, y], -1)))) - surface.least + 1e-3)
        above.contourf(x, y, height, 24, cmap="Greys", alpha=0.75)
        for name, told in by_name.items():
            points = np.array(told["path"], np.float32)
            (line,) = above.plot(*points.T, linewidth=1.3, label=f"{name} {told['rate']:.2g}")
            above.plot(*points[-1], ".", color=line.get_color(), markersize=8)
            below.plot(np.asarray(distance(surface, points)), color=line.get_color(), linewidth=1.3)
        above.plot(*surface.start, "o", color="black", markersize=8, markerfacecolor="white", zorder=5)
        above.plot(*np.array(surface.minima).T, "*", color="gold", markeredgecolor="black", markersize=14, zorder=5)
        above.set(xlim=(left, right), ylim=(bottom, top), title=place, xlabel="x", ylabel="y")
        above.legend(title="rate", fontsize=8, title_fontsize=8, loc="lower right" if place != "rosenbrock" else "best")
        below.set(yscale="log", xlabel="step", ylabel="distance to the nearest minimum")
        below.set_ylim(bottom=max(1e-8, below.get_ylim()[0]))
        below.grid(alpha=0.3)
    figure.suptitle("paths from the circle to the star, each optimizer at its best rate")
    figures.save(figure, path)


def tell_optimizers(found: Found) -> list[str]:
    """A table of the rates and the final distances."""
    width = max(map(len, RULES))
    lines = [" " * width + "".join(f"{place:>22}" for place in found)]
    for name in RULES:
        cells = (f"{found[place][name]['distance']:.2e} at {found[place][name]['rate']:.1e}" for place in found)
        lines.append(name.ljust(width) + "".join(f"{cell:>22}" for cell in cells))
    return lines


def vanishing(depth: int = 50, width: int = 100, examples: int = 128) -> Found:
    """By layer, for activations and initialisers: deviation of a, and norms of the derivatives by z and by the kernel.

    Of a network on the digits before training, in float64: single precision ends at 1e-38 and at 1e38. With ReLU the
    derivatives by the kernels are equally small in all layers, since activations shrink upwards as deltas do downwards:
    `sum_{ab} w^k_{ab} dL/dw^k_{ab}` is the same for all k while the biases are 0. So it is delta that tells.
    """
    images, labels = _digits()
    found: Found = {}
    with jax.enable_x64(True):
        x = jnp.asarray(images[:examples], jnp.float64)
        sizes = [x.shape[1], *[width] * depth, 10]
        for activation in ("sigmoid", "tanh", "relu"):
            for told, init in INITIALISERS.items():
                net = backprop.network(sizes, activation, init=init, dtype=jnp.float64, param_dtype=jnp.float64)

                # Without jit: alike in shape, the layers share their operations, and fifty of them compile slowly.
                layers = net.init(jax.random.key(0))
                trace = net.forward(layers, x)
                delta = net.deltas(layers, trace, labels[:examples])
                kernels = backprop.gradient(trace, delta)[:-1]
                found[f"{activation}, {told}"] = {
                    "std": [float(np.std(a)) for a in trace.after[1:-1]],
                    "delta": [float(np.linalg.norm(d)) / examples**0.5 for d in delta[:-1]],
                    "kernel": [float(np.linalg.norm(layer.kernel)) / examples for layer in kernels],
                }
    return found


def draw_vanishing(found: Found, path: Path) -> None:
    """One column an activation, one line an initialiser."""
    activations = list(dict.fromkeys(label.split(",")[0] for label in found))
    says = {"std": "deviation of a", "delta": "root mean square of |dL/dz|", "kernel": "|dL/dw| of the mean loss"}
    figure = figures.new_figure(4.6 * len(activations), 9.0)
    panels = figure.subplots(len(says), len(activations), sharex=True, sharey="row")
    for column, activation in enumerate(activations):
        for label, told in found.items():
            name, init = label.split(", ", 1)
            if name != activation:
                continue
            for axes, what in zip(panels[:, column], says, strict=True):
                axes.plot(range(1, len(told[what]) + 1), told[what], label=init, linewidth=1.6)
        panels[0, column].set(title=activation)
        panels[-1, column].set(xlabel="layer")
    for axes, ylabel in zip(panels[:, 0], says.values(), strict=True):
        axes.set_ylabel(ylabel)
    panels[0, 0].legend()
    for axes in panels.flat:
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.axhspan(1.2e-38, 3.4e38, color="black", alpha=0.04)
    figure.suptitle("activations and gradients by layer before training; grey: what float32 can hold")
    figures.save(figure, path)


def verdict(told: Found) -> str:
    """What becomes of delta on its way from the last layer to the first: within a factor 1,000 it is healthy."""
    ratio = told["delta"][0] / told["delta"][-1]
    return "vanishing" if ratio < 1e-3 else "exploding" if ratio > 1e3 else "healthy"


def tell_vanishing(found: Found) -> list[str]:
    """A line each: first and last layer."""
    return [
        f"{label:<22} |dL/dz| {told['delta'][0]:.1e} in the first layer, {told['delta'][-1]:.1e} in the last: "
        f"{verdict(told)}; deviation of a {told['std'][0]:.1e} and {told['std'][-1]:.1e}"
        for label, told in found.items()
    ]


def variance(examples: int = 256, draws: int = 1000) -> Found:
    """Of the gradient of B digits around that of all, from many draws, with the closed forms."""
    images, labels = _digits()
    images, labels = images[:examples], labels[:examples]
    net = backprop.network([images.shape[1], 32, 10])
    layers = net.init(jax.random.key(0))
    trace = net.forward(layers, images)
    norms = backprop.square_norms(trace, net.deltas(layers, trace, labels)).mean()

    def gradient(image: Array, label: Array) -> Array:
        slopes = net.backward(layers, net.forward(layers, image[None]), label[None])
        return flatten_util.ravel_pytree(slopes)[0]

    every = np.asarray(jax.jit(jax.vmap(gradient))(images, labels))  # that of a batch is the mean over its rows
    full, random = every.mean(0), np.random.default_rng(0)
    found: Found = {"size": [], "with replacement": [], "without": [], "closed with": [], "closed without": []}
    for size in (2**i for i in range(examples.bit_length())):
        found["size"].append(size)
        for kind, replace in (("with replacement", True), ("without", False)):
            drawn = (random.choice(examples, size, replace) for _ in range(draws))
            times = np.stack([np.bincount(rows, minlength=examples) for rows in drawn])  # that each example was drawn
            found[kind].append(float((((times / size) @ every - full) ** 2).sum(-1).mean()))
            closed = backprop.batch_variance(norms, (full**2).sum(), examples, size, replace)
            found[f"closed {kind.split()[0]}"].append(float(closed))
    return found


def draw_variance(found: Found, path: Path) -> None:
    """Measured as points, closed forms as lines."""
    figure = figures.new_figure(6.0, 4.4)
    axes = figure.subplots()
    for kind, formula in (("with replacement", "tr(S) / B"), ("without", "tr(S) / B (n - B) / (n - 1)")):
        # The whole set without replacement has none, which no logarithm shows.
        keep = np.array(found[f"closed {kind.split()[0]}"]) > 0
        size = np.array(found["size"])[keep]
        (line,) = axes.plot(size, np.array(found[f"closed {kind.split()[0]}"])[keep], label=formula, linewidth=1.3)
        axes.plot(size, np.array(found[kind])[keep], "o", color=line.get_color(), label=f"measured, {kind}")
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="trace of the covariance")
    axes.set_title(f"variance of the gradient of a batch, n = {found['size'][-1]}")
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def tell_variance(found: Found) -> list[str]:
    """A line a size."""
    return [
        f"B = {size:>4}: with replacement {w:.3e} ({cw:.3e} by tr(S)/B), without {o:.3e} ({co:.3e})"
        for size, w, o, cw, co in zip(*found.values(), strict=True)
    ]


def landscape(epochs: int = 40) -> Found:
    """Paths of three descents from one beginning over as many epochs, and the loss in their plane.

    The plane is that of the first two principal components of all points of the paths (Li et al. 2018,
    arXiv:1712.09913, section 7.2), on 256 digits.
    """
    images, labels = _digits()
    images, labels = images[:256], labels[:256]
    net = backprop.network([images.shape[1], 16, 10])
    start, unflatten = flatten_util.ravel_pytree(net.init(jax.random.key(0)))

    def loss(vector: Array) -> Array:
        return net.losses(net.forward(unflatten(vector), images), labels).mean()

    tracks, losses = {}, {}
    for name, size, rate in (("batch", 256, 0.3), ("mini-batch of 32", 32, 0.1), ("stochastic", 1, 0.02)):

        def epoch(vector: Array, key: Array, size: int = size, rate: float = rate) -> tuple[Array, tuple[Array, Array]]:
            def body(vector: Array, rows: Array) -> tuple[Array, None]:
                layers = unflatten(vector)
                slopes = net.backward(layers, net.forward(layers, images[rows]), labels[rows])
                return vector - rate * flatten_util.ravel_pytree(slopes)[0], None

            rows = jax.random.permutation(key, len(images)).reshape(-1, size)
            return jax.lax.scan(body, vector, rows)[0], (vector, loss(vector))

        last, (track, value) = jax.jit(lambda v, keys, epoch=epoch: jax.lax.scan(epoch, v, keys))(
            start, jax.random.split(jax.random.key(1), epochs)
        )
        tracks[name] = np.concatenate([track, last[None]])
        losses[name] = [*value.tolist(), float(loss(last))]
    points = np.concatenate(list(tracks.values()))
    middle = points.mean(0)
    _, strength, axes = np.linalg.svd(points - middle, full_matrices=False)
    plane = {name: ((track - middle) @ axes[:2].T).tolist() for name, track in tracks.items()}
    across = np.concatenate([np.array(track) for track in plane.values()])
    margin = 0.15 * np.ptp(across, axis=0)
    grid = [
        np.linspace(low, high, 41) for low, high in zip(across.min(0) - margin, across.max(0) + margin, strict=True)
    ]
    x, y = np.meshgrid(*grid)
    corners = middle + x.reshape(-1, 1) * axes[0] + y.reshape(-1, 1) * axes[1]
    height = jax.jit(lambda corners: jax.lax.map(loss, corners, batch_size=50))(jnp.asarray(corners, jnp.float32))
    share = (strength[:2] ** 2).sum() / (strength**2).sum()
    return {
        "tracks": plane, "losses": losses, "x": grid[0].tolist(), "y": grid[1].tolist(),
        "height": np.asarray(height).reshape(x.shape).tolist(), "share": float(share),
    }  # fmt: skip


def draw_landscape(found: Found, path: Path) -> None:
    """The plane with the paths, and the loss of all examples by epoch."""
    figure = figures.new_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    colors = left.contourf(found["x"], found["y"], np.log10(found["height"]), 24, cmap="Greys")
    figure.colorbar(colors, label="log10 of the loss", format="%.1f")
    for (name, track), width in zip(found["tracks"].items(), (4.5, 2.5, 1.2), strict=True):
        left.plot(*np.array(track).T, marker=".", markersize=3 * width, linewidth=width, label=name)
        right.plot(found["losses"][name], label=name, linewidth=1.4)
    left.plot(*found["tracks"]["batch"][0], "o", color="black", markersize=9, markerfacecolor="white", zorder=5)
    left.set(xlabel="first component", ylabel="second component")
    left.set_title(f"the paths' plane, {found['share']:.0%} of their variation; a point an epoch")
    left.legend()
    right.set(yscale="log", xlabel="epoch", ylabel="loss of all examples", title="as many examples seen, more steps")
    right.grid(alpha=0.3)
    right.legend()
    figures.save(figure, path)


def tell_landscape(found: Found) -> list[str]:
    """A line a descent."""
    return [f"{name}: loss {losses[0]:.3f} to {losses[-1]:.4f}" for name, losses in found["losses"].items()]


def _digits() -> tuple[Array, Array]:
    """The training digits, `[n, 64]` with mean 0 and deviation 1, and their labels."""
    train, _ = sources.digits()
    examples = sources.read_all(train)
    images = (examples["image"].reshape(train.size, -1) - train.mean) / train.std
    return jnp.asarray(images), jnp.asarray(examples["label"])


STUDIES: dict[str, Study] = {
    "optimizers": (optimizers, draw_optimizers, tell_optimizers),
    "vanishing": (vanishing, draw_vanishing, tell_vanishing),
    "variance": (variance, draw_variance, tell_variance),
    "landscape": (landscape, draw_landscape, tell_landscape),
}


def main() -> None:
    """Runs the studies named on the command line."""
    studies.run("mlp_textbook", __doc__, STUDIES)


if __name__ == "__main__":
    main()
