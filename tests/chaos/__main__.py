"""`python tests/chaos [--minutes 5] [--seed 1] [--redis aof|memory] [--only rq|local] [--json FILE]`: real faults, for minutes.

Two installations work side by side, each with faults of its own: workers on two hosts with PostgreSQL and RQ, and two
workers of one host on SQLite. At the end every execution must have the right result, every call must have been
delivered once, and only calls that a fault has hit at their executor may have run more than once.

The run has a network and mounts of its own, made by `unshare`: nothing that it breaks is the machine's. The seed decides
which fault comes when, as far as the operating system lets that be repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_INSIDE = "CHAOS_INSIDE"
_CLONE_NEW = ("--net", "--mount", "--uts")
_ROOT = [] if os.geteuid() == 0 else ["--map-root-user"]

if os.environ.get(_INSIDE) != str(os.getpid()):
    # `unshare`, of util-linux, becomes this program again: the process id stays.
    os.environ[_INSIDE] = str(os.getpid())
    os.execvp("unshare", ["unshare", *_ROOT, *_CLONE_NEW, sys.executable, *sys.argv])
sys.path.insert(0, str(Path(__file__).parent.parent))

from chaos import faults, installations
from chaos.checks import Broken
from chaos.figures import Figures
from chaos.run import run


def main() -> int:
    chosen = _arguments()
    # Ended from outside, it takes its servers and folders with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = installations.new_folder()
    results: dict[str, Figures] = {}
    broken: list[str] = []
    runs: dict[str, Callable[[Figures], None]] = {
        "rq": lambda figures: _run_rq(chosen, folder / "rq", figures),
        "local": lambda figures: _run_local(chosen, folder / "local", figures),
    }
    names = {"rq": f"PostgreSQL and RQ ({chosen.redis})", "local": "SQLite"}

    def guarded(key: str) -> None:
        results[key] = Figures(names[key], chosen.seed)
        try:
            runs[key](results[key])
        except Broken as error:
            broken.append(f"{names[key]}: {error}")
        except BaseException as error:
            broken.append(f"{names[key]}: {type(error).__name__}: {error}")
            raise

    threads = [threading.Thread(target=guarded, args=(key,)) for key in ([chosen.only] if chosen.only else runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for figures in results.values():
        print(figures)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([figures.to_json() for figures in results.values()], indent=2) + "\n")
    if broken:
        print("\n".join(["BROKEN", *broken, f"logs are in {folder}"]))
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(
        "every execution has the right result, every call was delivered once, "
        "and no call ran twice without a fault at its executor"
    )
    return 0


def _run_rq(chosen: argparse.Namespace, folder: Path, figures: Figures) -> None:
    with installations.with_rq(folder, figures, keeps_data=chosen.redis == "aof") as installation:
        run(
            installation,
            faults.of_rq(installation),
            seconds=chosen.minutes * 60,
            report_seconds=chosen.report_seconds,
        )


def _run_local(chosen: argparse.Namespace, folder: Path, figures: Figures) -> None:
    with installations.local(folder, figures) as installation:
        run(
            installation,
            faults.of_local(installation),
            seconds=chosen.minutes * 60,
            report_seconds=chosen.report_seconds,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long there are faults; 5 by default")
    parser.add_argument("--seed", type=int, default=1, help="decides which fault comes when")
    parser.add_argument("--redis", choices=["aof", "memory"], default="aof", help="whether Redis keeps what it has")
    parser.add_argument("--only", choices=["rq", "local"], help="one installation instead of both")
    parser.add_argument("--report-seconds", type=float, default=60.0, help="how often figures are printed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
