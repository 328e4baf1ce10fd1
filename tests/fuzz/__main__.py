"""Coverage-guided fuzzing of what reads foreign bytes: `python tests/fuzz TARGET SECONDS`; needs atheris.

What makes a target fail is written to `tests/fuzz/corpus/TARGET/`, where the ordinary tests find it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

with atheris.instrument_imports(include=["durable_monty", "json", "tomllib", "fuzz"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target for so long."""
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz {{{','.join(TARGETS)}}} SECONDS")
    target, seconds = sys.argv[1], int(sys.argv[2])
    found = HERE / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    work = HERE / ".work" / target
    work.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-dict={HERE / 'tokens.dict'}",
        f"-artifact_prefix={found}/",
        "-max_len=2048",
        "-timeout=20",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(work), str(found), str(HERE / "seeds" / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
