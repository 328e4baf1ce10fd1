"""`python tests/simulation --seeds 10000`: many seeds; a failing one is made smaller and told how to run again."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":
    # The order of sets of texts is part of what a seed decides.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
sys.path.insert(0, str(Path(__file__).parent.parent))

from simulation.plants import PLANTS, planted
from simulation.simulate import STEPS, Result, Shop, Simulation
from simulation.world import FAULTS


def minimised(shop: Shop, seed: int, steps: int, without: list[str]) -> tuple[int, list[str], Result]:
    """The fewest kinds of trouble, then the fewest steps, with which the seed still fails."""
    found = Simulation(shop, seed, steps, without).run()
    for kind in FAULTS:
        if kind not in without:
            tried = Simulation(shop, seed, steps, [*without, kind]).run()
            if tried.violation:
                without, found = [*without, kind], tried
    low = 0
    while low < steps:
        middle = (low + steps) // 2
        tried = Simulation(shop, seed, middle, without).run()
        if tried.violation:
            steps, found = middle, tried
        else:
            low = middle + 1
    return steps, without, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with everything that it did")
    parser.add_argument("--steps", type=int, default=STEPS, help="how long things go wrong")
    parser.add_argument("--without", default="", help=f"kinds of trouble to leave out: {','.join(FAULTS)}")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this bug in the engine")
    asked = parser.parse_args()
    logging.disable(logging.ERROR)
    without = [kind for kind in asked.without.split(",") if kind]
    shop = Shop()
    began, commits, turns = time.monotonic(), 0, 0
    with planted(asked.plant):
        seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
        for number, seed in enumerate(seeds, 1):
            result = Simulation(shop, seed, asked.steps, without).run()
            commits, turns = commits + result.commits, turns + result.turns
            if result.violation:
                print(f"seed {seed} fails: {result.violation}", flush=True)
                steps = asked.steps
                if asked.seed is None and not asked.plant:
                    steps, without, result = minimised(shop, seed, steps, without)
                print("\n".join(result.trace))
                left_out = f" --without '{','.join(without)}'" if without else ""
                plant = f" --plant '{asked.plant}'" if asked.plant else ""
                print(f"violated: {result.violation}")
                print(f"again: python tests/simulation --seed {seed} --steps {steps}{left_out}{plant}")
                return 1
            if asked.seed is not None:
                print("\n".join(result.trace))
            if number % 100 == 0:
                print(f"{number} seeds, {turns} turns, {commits} commits, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(seeds)} seeds passed: {turns} turns, {commits} commits, {time.monotonic() - began:.0f} s")
    shop.close()
    return 0


if __name__ == "__main__":
    # Threads of simulated processes that are stopped for ever do not keep this one.
    code = main()
    sys.stdout.flush()
    os._exit(code)
