"""Draws what textbooks draw of recurrent networks, and prints the numbers.

python -m experiments.recurrence_textbook                     # all of it
python -m experiments.recurrence_textbook gradients           # some

`gradients`: how much of a gradient comes back from the last step, by lag, before training. `copying`: symbols to
remember over a lag: who learns it.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlfx.data.sequence_tasks import copy_stream
from dlfx.models.sequence.copier import Copier
from dlfx.nn.recurrent import Recurrent
from dlfx.training import figures
from dlfx.types import Array, Key
from experiments import studies
from experiments.studies import Found, Study

COLORS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#000000", "#777777")


def identity(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
    """Le, Jaitly and Hinton 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units."""
    return jnp.eye(shape[0], shape[1], dtype=dtype)


NETWORKS: dict[str, dict[str, Any]] = {
    "RNN, tanh, Xavier": {"cell": "rnn", "recurrent_init": jax.nn.initializers.xavier_uniform()},
    "RNN, tanh, orthogonal": {"cell": "rnn"},
    "RNN, ReLU, Xavier": {"cell": "rnn", "activation": "relu", "recurrent_init": jax.nn.initializers.xavier_uniform()},
    "RNN, ReLU, identity": {"cell": "rnn", "activation": "relu", "recurrent_init": identity},
    "LSTM, forget bias 0": {"cell": "lstm", "forget_bias": 0.0},
    "LSTM, forget bias 1": {"cell": "lstm", "forget_bias": 1.0},
    "LSTM, forget bias 5": {"cell": "lstm", "forget_bias": 5.0},
    "GRU": {"cell": "gru"},
}
COPIERS = {
    "RNN, tanh, Xavier": "#4477aa",
    "RNN, tanh, orthogonal": "#66ccee",
    "LSTM, forget bias 1": "#aa3377",
    "LSTM, forget bias 5": "#000000",
    "GRU": "#777777",
}


def gradients(steps: int = 100, units: int = 64, inputs: int = 16, batch: int = 8, seeds: int = 20) -> Found:
    """By lag k = 0 ... T - 1 the norm of d (v . h_T) / d x_{T-k}, for noise x and v on the unit sphere.

    Of every sequence the gradient's norm, their root mean square over a batch, and of that the quartiles over seeds of
    weights, inputs and v.
    """
    found: Found = {}
    for label, form in NETWORKS.items():
        model = Recurrent(features=units, **form)

        def norms(key: Key, model: Recurrent = model) -> Array:
            key_init, key_x, key_v = jax.random.split(key, 3)
            x = jax.random.normal(key_x, (batch, steps, inputs))
            v = jax.random.normal(key_v, (batch, units))
            v /= jnp.linalg.norm(v, axis=1, keepdims=True)
            variables = model.init(key_init, x)
            gradient = jax.grad(lambda x: (model.apply(variables, x)[0][:, -1] * v).sum())(x)
            return jnp.sqrt((gradient**2).sum(-1).mean(0))[::-1]

        by_seed = jax.jit(jax.vmap(norms))(jax.random.split(jax.random.key(0), seeds))
        low, median, high = np.quantile(np.asarray(by_seed, np.float64), (0.25, 0.5, 0.75), axis=0)
        found[label] = {"median": median.tolist(), "low": low.tolist(), "high": high.tolist()}
    return found


def draw_gradients(found: Found, path: Path) -> None:
    """A line a network."""
    figure = figures.new_figure(8.0, 5.0)
    axes = figure.subplots()
    for (label, told), color in zip(found.items(), COLORS, strict=False):
        lags = range(len(told["median"]))
        axes.plot(lags, told["median"], color=color, label=label)
        axes.fill_between(lags, told["low"], told["high"], color=color, alpha=0.2, linewidth=0)
    axes.set(yscale="log", ylim=(1e-12, 10), xlabel="lag k", ylabel="norm of d (v . h_T) / d x_{T-k}")
    axes.set_title("what comes back of a gradient before training; median and quartiles of seeds", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figures.save(figure, path)


def tell_gradients(found: Found) -> list[str]:
    """A line a network: the gradient at some lags."""
    lines = []
    for label, told in found.items():
        lags = [lag for lag in (0, 10, 25, 50, 99) if lag < len(told["median"])]
        lines.append(f"{label:<22} " + ", ".join(f"{told['median'][lag]:.1e} at lag {lag}" for lag in lags))
    return lines


def copying(
    lag: int = 60, count: int = 3, symbols: int = 4, units: int = 64, steps: int = 1500, seeds: int = 5
) -> Found:
    """By training step how many of the asked symbols are right, on new sequences, of networks of several seeds.

    Adam at 0.006, gradients clipped to norm 1, batches of 32; the loss is that of the asked places alone.
    """
    streams = copy_stream(lag, 32, count, symbols)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(6e-3))
    found: Found = {"chance": 1 / symbols, "lag": lag, "networks": {}}
    for label in COPIERS:
        model = Copier(symbols + 2, {"features": units, **NETWORKS[label]})

        def begin(key: Key, model: Copier = model) -> Any:
            params = model.init(key, jnp.zeros((1, lag + 2 * count), jnp.int32))
            return params, optimizer.init(params)

        def step(state: Any, batch: Any, model: Any = model) -> Any:
            def loss(params: Any) -> tuple[Array, Array]:
                logits = model.apply(params, batch["tokens"])
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
                right = (logits.argmax(-1) == batch["targets"]) * batch["mask"]
                return (losses * batch["mask"]).sum() / batch["mask"].sum(), right.sum() / batch["mask"].sum()

            (_, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(state[0])
            updates, moments = optimizer.update(gradient, state[1], state[0])
            return (optax.apply_updates(state[0], updates), moments), accuracy

        many = jax.jit(lambda states, batches, step=step: jax.lax.scan(jax.vmap(step, (0, None)), states, batches))
        states = jax.jit(jax.vmap(begin))(jax.random.split(jax.random.key(0), seeds))
        size = min(50, steps)
        accuracies = []
        for start in range(0, steps - size + 1, size):
            batches = [streams.host(0, i) for i in range(start, start + size)]
            states, accuracy = many(states, jax.tree.map(lambda *x: np.stack(x), *batches))
            accuracies.append(np.asarray(accuracy).mean(0))
        found["networks"][label] = {
            "step": [size * (i + 1) for i in range(len(accuracies))],
            "accuracy": np.stack(accuracies, 1).tolist(),  # [seeds, points], each the mean of the steps before it
        }
    return found


def draw_copying(found: Found, path: Path) -> None:
    """A line a seed."""
    figure = figures.new_figure(7.0, 4.4)
    axes = figure.subplots()
    for label, told in found["networks"].items():
        for seed, line in enumerate(told["accuracy"]):
            name = None if seed else label
            axes.plot(told["step"], line, color=COPIERS[label], alpha=0.7, linewidth=1.2, label=name)
    axes.axhline(found["chance"], color="black", linewidth=0.8, linestyle="--", label="chance")
    axes.set(xlabel="training step", ylabel="symbols right", ylim=(0, 1.03))
    axes.set_title(f"copying over a lag of {found['lag']} steps, a line a seed", fontsize=11)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figures.save(figure, path)


def tell_copying(found: Found) -> list[str]:
    """A line a network: what each seed came to."""
    return [
        f"{label:<22} " + ", ".join(f"{line[-1]:.3f}" for line in told["accuracy"]) + " right in the end, by seed"
        for label, told in found["networks"].items()
    ]


STUDIES: dict[str, Study] = {
    "gradients": (gradients, draw_gradients, tell_gradients),
    "copying": (copying, draw_copying, tell_copying),
}


def main() -> None:
    """Runs the studies named on the command line."""
    studies.run("recurrence_textbook", __doc__, STUDIES)


if __name__ == "__main__":
    main()
