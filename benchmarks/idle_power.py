"""How soon a board's two readings of its power forget the work before.

    python -m benchmarks.idle_power --seconds 5 --rounds 5

A run waits for that before it reads idle power: `power_w` is a mean of the last second,
`instant_power_w` is of the moment. Medians over the rounds, in watts, by the time since the work.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from statistics import median

import tensorflow as tf

from green_screen.power.visible import visible_boards

EDGES_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0)


def work(seconds: float) -> None:
    """Multiply matrices on the board for some seconds, and wait for the last one."""
    matrix = tf.random.normal([8192, 8192])
    multiply = tf.function(lambda a: tf.linalg.matmul(a, a) / 8192.0)
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for _ in range(8):
            matrix = multiply(matrix)
        float(matrix[0, 0])


def main() -> None:
    """Work and read in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    board = visible_boards()[0]
    found: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        work(arguments.seconds)
        ended_s = time.perf_counter()
        while (since_s := time.perf_counter() - ended_s) < EDGES_S[-1]:
            edge_s = next(edge for edge in EDGES_S if since_s < edge)
            found[edge_s].append((board.instant_power_w(), board.power_w()))
            time.sleep(0.02)
    print(board.label)
    print("| s after the work | of the moment, W | mean of a second, W |")
    print("|---|---|---|")
    for after_s, before_s in zip((0.0, *EDGES_S), EDGES_S, strict=False):
        instant_w, mean_w = (median(values) for values in zip(*found[before_s], strict=True))
        print(f"| {after_s:g} to {before_s:g} | {instant_w:.1f} | {mean_w:.1f} |")


if __name__ == "__main__":
    main()
