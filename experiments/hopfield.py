"""Draws what a Hopfield network remembers, and how much, and prints the numbers.

python -m experiments.hopfield                # both
python -m experiments.hopfield capacity       # one

`recall`: digits corrupted and recalled, by Hebb's rule and by the projection rule. `capacity`: the errors of recall by
the number of random patterns, for networks of several sizes and by the theory of infinite ones.
"""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.data import sources
from dlfx.models.sequence import hopfield
from dlfx.training import figures
from experiments import studies
from experiments.studies import Found, Study

DIGITS = tuple(range(10))
MEMORIES = {  # the rule, and the digits it stores; 3, 4 and 7 are the three that resemble each other least
    "Hebb, 3 digits": (hopfield.hebbian, (3, 4, 7)),
    "Hebb, 10 digits": (hopfield.hebbian, DIGITS),
    "projection, 10 digits": (hopfield.projection, DIGITS),
}
SHARES = tuple(sixteenths / 16 for sixteenths in range(9))
LOADS = tuple(round(0.05 + 0.01 * i, 2) for i in range(16))


def recall(shown: float = 0.15, shares: tuple[float, ...] = SHARES, times: int = 100) -> Found:
    """The first digit of each class in black and white, corrupted and recalled.

    Args:
      shown: the share of pixels turned over in the pictures.
      shares: those for which to count how often a digit comes back without an error.
      times: how often each digit is corrupted for that.
    """
    train, _ = sources.digits()
    examples = sources.read_all(train)
    first = [int(np.flatnonzero(examples["label"] == digit)[0]) for digit in DIGITS]
    # Black from a grey of 0.3 on, as then two of five pixels are: the more even +1 and -1 are, the better is it stored.
    digits = np.where(examples["image"][first].reshape(10, -1) > 0.3, 1.0, -1.0).astype(np.float32)
    corrupted = np.asarray(hopfield.corrupt(jax.random.key(0), jnp.asarray(digits), shown))
    found: Found = {"stored": digits.tolist(), "share": shown, "corrupted": corrupted.tolist(), "shares": shares}
    again = jnp.asarray(np.tile(digits, (times, 1, 1)))
    many = np.stack([hopfield.corrupt(jax.random.key(1 + i), again, share) for i, share in enumerate(shares)])
    recalls = jax.jit(hopfield.recall)
    found["by memory"] = {}
    for label, (rule, chosen) in MEMORIES.items():
        stored = digits[list(chosen)]
        weights = rule(jnp.asarray(stored))
        # Every memory sees all digits, so that one program does for all; what it never stored is left out.
        states, energies, sweeps = map(np.asarray, recalls(weights, corrupted, jax.random.key(0)))
        states, energies = states[list(chosen)], energies[: sweeps + 1, list(chosen)]
        ends = np.asarray(recalls(weights, many, jax.random.key(0)).states)
        right = (ends[:, :, list(chosen)] == stored).all(-1)
        found["by memory"][label] = {
            "digits": chosen, "recalled": states.tolist(), "energies": energies.tolist(),
            "wrong": (states != stored).sum(-1).tolist(), "back": right.mean((1, 2)).tolist(),
        }  # fmt: skip
    return found


def draw_recall(found: Found, path: Path) -> None:
    """A line of pictures for each memory, and below how often digits come back."""
    memories = found["by memory"]
    figure = figures.new_figure(10.5, 9.5)
    above, below = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    lines = {
        "stored": dict(zip(DIGITS, found["stored"], strict=True)),
        f"{found['share']:.0%} turned over": dict(zip(DIGITS, found["corrupted"], strict=True)),
    }
    for label, told in memories.items():
        lines[label.replace(", ", ",\n")] = dict(zip(told["digits"], told["recalled"], strict=True))
    for axes, (label, by_digit) in zip(above.subplots(len(lines), 1), lines.items(), strict=True):
        side = round(len(found["stored"][0]) ** 0.5)
        strip = np.full((side + 2, len(DIGITS), side + 2), -0.8)  # grey between the digits
        for digit, state in by_digit.items():
            strip[1:-1, digit, 1:-1] = np.reshape(state, (side, side))
        axes.imshow(strip.reshape(side + 2, -1), cmap="gray_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    left, right = below.subplots(1, 2)
    for label, told in memories.items():
        (line,) = left.plot(found["shares"], told["back"], marker=".", label=label)
        right.plot(np.array(told["energies"]), color=line.get_color(), linewidth=1, marker=".")
    left.set(xlabel="share of pixels turned over", ylabel="digits recalled without an error", ylim=(-0.03, 1.03))
    left.legend()
    right.set_xticks(range(max(len(told["energies"]) for told in memories.values())))
    right.set(xlabel="sweep", ylabel="energy", title="of the digits above")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figures.save(figure, path)


def tell_recall(found: Found) -> list[str]:
    """A line a memory."""
    lines = []
    for label, told in found["by memory"].items():
        back = ", ".join(
            f"{some:.0%} at {share:.1%}" for share, some in zip(found["shares"], told["back"], strict=True)
        )
        lines.append(f"{label}: recalled without an error, by pixels turned over: {back}")
    return lines


def capacity(
    sizes: tuple[int, ...] = (250, 500, 1000, 2000), loads: tuple[float, ...] = LOADS, recalled: int = 200
) -> Found:
    """The share of wrong units after recall that starts from a stored pattern itself.

    Args:
      sizes: of the networks, N.
      loads: the numbers of random patterns, over N.
      recalled: how many patterns to recall for each, from as many networks as that needs with up to 50 of each.
    """
    theory, overlap = hopfield.mean_field()
    found: Found = {"loads": loads, "theory": {"load": theory.tolist(), "error": ((1 - overlap) / 2).tolist()}}
    recalls = jax.jit(partial(hopfield.recall, max_sweeps=200))
    found["by size"] = {}
    for size in sizes:
        some = min(50, round(min(loads) * size))
        told: Found = {"networks": math.ceil(recalled / some), "error": [], "standard error": [], "sweeps": []}
        for load in loads:
            errors, sweeps = [], 0
            for net in range(told["networks"]):
                key = jax.random.fold_in(jax.random.key(size), net)
                patterns = jax.random.rademacher(key, (round(load * size), size), jnp.float32)
                end = recalls(hopfield.hebbian(patterns), patterns[:some], key)
                errors.append(float((np.asarray(end.states) != np.asarray(patterns[:some])).mean()))
                sweeps = max(sweeps, int(end.sweeps))
            told["error"].append(float(np.mean(errors)))
            told["standard error"].append(float(np.std(errors) / len(errors) ** 0.5))
            told["sweeps"].append(sweeps)
        found["by size"][size] = told
    return found


def draw_capacity(found: Found, path: Path) -> None:
    """All errors, and the small ones below capacity."""
    figure = figures.new_figure(11.0, 4.4)
    panels = figure.subplots(1, 2)
    theory = found["theory"]
    for axes in panels:
        for size, told in found["by size"].items():
            axes.errorbar(
                found["loads"], told["error"], told["standard error"], marker=".", linewidth=1.3, label=f"N = {size}"
            )
        axes.plot(theory["load"], theory["error"], color="black", linewidth=1.5, label="theory, N infinite")
        axes.axvline(theory["load"][-1], color="black", linestyle=":", label=f"capacity {theory['load'][-1]:.3f}")
        axes.set(xlabel="patterns / N", ylabel="wrong units after recall", xlim=(min(found["loads"]), None))
        axes.grid(alpha=0.3)
    panels[0].legend()
    panels[1].set(ylim=(0, 0.05), title="the same, enlarged")
    panels[0].set_title("recall of random patterns stored by Hebb's rule")
    figures.save(figure, path)


def tell_capacity(found: Found) -> list[str]:
    """A line a size: some errors, and the load at which they pass three times what theory has at most."""
    limit, capacity = 3 * found["theory"]["error"][-1], found["theory"]["load"][-1]
    lines = []
    for size, told in found["by size"].items():
        some = list(zip(found["loads"], told["error"], strict=True))
        passes = np.interp(limit, np.maximum.accumulate(told["error"]), found["loads"])
        errors = ", ".join(f"{error:.4f} at {load:g}" for load, error in some[::3])
        lines.append(f"N = {size}: wrong {errors}; passes {limit:.3f} at {passes:.3f} N patterns")
    return [*lines, f"theory: {found['theory']['error'][-1]:.4f} at the capacity, {capacity:.4f} N"]


STUDIES: dict[str, Study] = {
    "recall": (recall, draw_recall, tell_recall),
    "capacity": (capacity, draw_capacity, tell_capacity),
}


def main() -> None:
    """Runs the studies named on the command line."""
    studies.run("hopfield", __doc__, STUDIES)


if __name__ == "__main__":
    main()
