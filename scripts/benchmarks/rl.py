"""Environment steps per second of training: dlfx against loops over gymnasium, in NumPy and in PyTorch.

scripts/bench rl                    Q-learning with 1, 64 and 4,096 seeds, DQN with 1 and 64
scripts/bench rl --only replay      the replay memory against flashbax's, microseconds a turn
scripts/bench rl --only host        acting in gymnasium's CartPole-v1 on the host
"""

import argparse
import fnmatch
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # scripts/ is installed nowhere

NEEDED = ("gymnasium", "gymnax", "torch")
TRAINED = {"q_learning": (1, 64, 4096), "dqn": (1, 64)}  # peer to seeds
TITLES = {"q_learning": "Q-learning on CliffWalking", "dqn": "DQN on CartPole-v1"}
EXTRA = ("replay", "host")  # only when asked for
# Learner steps in a call: 100 environment steps each in Q-learning, 10 in DQN.
STEPS = {"q_learning-1": 100, "q_learning-64": 100, "q_learning-4096": 10, "dqn-1": 500, "dqn-64": 50}
Rows = list[dict[str, Any]]


def chosen(pattern: str) -> list[str]:
    """The cases that a pattern, or a part of a name, asks for; without one, all of training."""
    names = [f"{kind}-{seeds}" for kind, counts in TRAINED.items() for seeds in counts]
    return fnmatch.filter([*names, *EXTRA], f"*{pattern}*") if pattern else names


def training_rows(kind: str, names: list[str], seconds: float, rounds: int, starts: int, say: Any) -> Rows:
    """Measures and prints the cases of Q-learning or of DQN, which learns from step `starts` on; rows for JSON."""
    import numpy as np

    from scripts.benchmarks import rl_dlfx, rl_peers, timing

    seeds_of = {name: int(name.rpartition("-")[2]) for name in names}
    if kind == "dqn":
        sides = [rl_dlfx.dqn_side(seeds, STEPS[name], starts) for name, seeds in seeds_of.items()]
    else:
        sides = [rl_dlfx.q_learning_side(seeds, STEPS[name]) for name, seeds in seeds_of.items()]
    peers, threads = rl_peers.sides(kind, learning_starts=starts)
    peak = [rl_dlfx.matmul_side()] if kind == "dqn" else []
    rates = timing.interleave([*sides, *peers, *peak], seconds, rounds)
    rows: Rows = []
    say(f"\n{TITLES[kind]}: environment steps per second, ± half the range of {rounds} rounds")
    say(f"{'seeds':>6}{'dlfx':>20}{'usual':>18}{'lean':>18}   {'dlfx / usual':<26}dlfx / lean")
    for name, seeds in seeds_of.items():
        cells = []
        for peer in peers:
            ratio, low, high = timing.compare(rates[name], rates[peer.name])
            cells.append(f"{ratio:.1f} ({low:.1f} to {high:.1f})")
            rows.append(
                {
                    "case": f"{TITLES[kind]}, {seeds} seed{'s' * (seeds > 1)}",
                    "dlfx_steps_per_second": float(np.median(rates[name])),
                    "peer": peer.name,
                    "peer_steps_per_second": float(np.median(rates[peer.name])),
                    "ratio": ratio,
                }
            )
        usual, lean = (timing.words(rates[peer.name]) for peer in peers)
        say(f"{seeds:>6}{timing.words(rates[name]):>20}{usual:>18}{lean:>18}   {cells[0]:<26}{cells[1]}")
    if kind == "dqn":
        flops, most = rl_dlfx.flops_per_step(), float(np.median(rates["matmul"]))
        told = ", ".join(f"{name} {count}" for name, count in threads.items())
        say(f"  PyTorch's threads: {told}. float32 products of 2048 by 2048 matrices: {most / 1e9:.0f} GFLOP/s")
        say(f"  matrix products of a step, without Adam: {flops / 1e6:.3f} MFLOP")
        for name in names:
            done = flops * float(np.median(rates[name]))
            say(f"  {name}: {done / 1e9:.1f} GFLOP/s, {100 * done / most:.0f}% of that")
    return rows


def replay_rows(seconds: float, rounds: int, say: Any) -> Rows:
    """Measures and prints the replay memory: one member and 64, uniform and prioritised."""
    import numpy as np

    from scripts.benchmarks import rl_replay, timing

    if importlib.util.find_spec("flashbax") is None:
        print("replay: not measured, flashbax is not installed: pip install flashbax==0.1.3", file=sys.stderr)
        return []
    rows: Rows = []
    say("\nReplay of 10,000: microseconds for 10 transitions written and 128 drawn (prioritised: and 128 changed)")
    say(f"{'':<26}{'dlfx':>18}{'flashbax':>18}   flashbax / dlfx")
    for prioritized in (False, True):
        for members in (1, 64):
            turns = (200 if prioritized else 2000) // (16 if members > 1 else 1)
            sides = [
                rl_replay.side("dlfx", rl_replay.dlfx_memory(prioritized), members, turns),
                rl_replay.side("flashbax", rl_replay.flashbax_memory(prioritized), members, turns),
            ]
            taken = {name: 1e6 / r for name, r in timing.interleave(sides, seconds, rounds).items()}
            ratio, low, high = timing.compare(taken["flashbax"], taken["dlfx"])
            case = f"{'prioritised' if prioritized else 'uniform'}, {members} member{'s' * (members > 1)}"
            mine, theirs = timing.words(taken["dlfx"]), timing.words(taken["flashbax"])
            say(f"{case:<26}{mine:>18}{theirs:>18}   {ratio:.2f} ({low:.2f} to {high:.2f})")
            medians = {
                f"{who}_us": float(np.median(taken[key])) for who, key in (("dlfx", "dlfx"), ("peer", "flashbax"))
            }
            rows.append({"case": f"replay, {case}", "peer": "flashbax", "ratio": ratio, **medians})
    return rows


def host_rows(seconds: float, rounds: int, say: Any) -> Rows:
    """Measures and prints acting on the host, in 1 environment and in 16."""
    import numpy as np

    from scripts.benchmarks import rl_host, timing

    rows: Rows = []
    say("\nActing in gymnasium's CartPole-v1 with a network of 120 and 84 units: environment steps per second")
    say(f"{'environments':>12}{'dlfx':>18}{'loop':>18}   dlfx / loop")
    for envs in (1, 16):
        sides = [rl_host.dlfx_side(envs, 500), rl_host.loop_side(envs, 500)]
        rates = timing.interleave(sides, seconds, rounds)
        ratio, low, high = timing.compare(rates["dlfx"], rates["loop"])
        mine, theirs = timing.words(rates["dlfx"]), timing.words(rates["loop"])
        say(f"{envs:>12}{mine:>18}{theirs:>18}   {ratio:.2f} ({low:.2f} to {high:.2f})")
        rows.append(
            {
                "case": f"host, CartPole-v1, {envs} environment{'s' * (envs > 1)}",
                "dlfx_steps_per_second": float(np.median(rates["dlfx"])),
                "peer": "SyncVectorEnv and a compiled policy",
                "peer_steps_per_second": float(np.median(rates["loop"])),
                "ratio": ratio,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cases whose name has this in it: dqn, *-64, replay"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: what a figure is about")
    options = parser.parse_args()
    names = chosen(options.only)
    if not names:
        everything = [*chosen(""), *EXTRA]
        parser.exit(2, f"rl: no case is called {options.only!r}; there is {', '.join(everything)}\n")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        parser.exit(2, f"rl: not measured, missing {', '.join(missing)}: pip install {' '.join(missing)}\n")

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    import jax

    # As the experiments do, so that only the first run compiles.
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(ROOT / ".cache/xla")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    seconds, rounds, starts = (0.3, 3, 1_000) if options.quick else (1.0, 7, 10_000)
    devices = f"{len(jax.devices())} {jax.default_backend()} device(s)"
    say(f"{os.cpu_count()} CPUs, {devices}, load average {os.getloadavg()[0]:.1f} before")
    rows: Rows = []
    for kind in TRAINED:
        if some := [name for name in names if name.startswith(f"{kind}-")]:
            rows += training_rows(kind, some, seconds, rounds, starts, say)
    if "replay" in names:
        rows += replay_rows(seconds, rounds, say)
    if "host" in names:
        rows += host_rows(seconds, rounds, say)
    say(f"\nload average {os.getloadavg()[0]:.1f} after")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
