"""What fuzzing starts from, and what it has found, on the same targets without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

FOLDER = Path(__file__).parent.parent / "fuzz"
FILES = sorted(file for kind in ("seeds", "corpus") for file in FOLDER.glob(f"{kind}/*/*"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_what_fuzzing_has_found_stays_mended(file):
    TARGETS[file.parent.name](file.read_bytes())


def test_every_target_has_something_to_start_from():
    assert {file.parent.name for file in FILES} == set(TARGETS)
