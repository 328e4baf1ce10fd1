"""What a sample holds, and whether samples are flat."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_KIB = 1024
# By how much the last third of the samples may lie above the first, and what is noise however small the value.
_MAY_GROW = {
    "rss_bytes": (0.10, 8 << 20),
    "file_descriptors": (0.0, 3.0),
    "threads": (0.0, 3.0),
    "database_bytes": (0.25, 4 << 20),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        minute: Since the beginning.
        rss_bytes: Of the workers and of their sandboxes; likewise the next two.
        processes: How many these are.
        executions: That ended since the sample before.
        latency_p50_ms: From start to end of these.
    """

    minute: float
    rss_bytes: int
    file_descriptors: int
    threads: int
    processes: int
    database_bytes: int
    executions: int
    latency_p50_ms: float
    latency_p95_ms: float

    def row(self) -> str:
        """A line of the table."""
        return (
            f"{self.minute:7.1f} {self.rss_bytes / (1 << 20):9.1f} {self.file_descriptors:5d} {self.threads:8d} {self.processes:5d} "
            f"{self.database_bytes / (1 << 20):8.1f} {self.executions:10d} {self.latency_p50_ms:8.1f} {self.latency_p95_ms:8.1f}"
        )


HEADER = f"{'minute':>7} {'RSS MiB':>9} {'fds':>5} {'threads':>8} {'procs':>5} {'DB MiB':>8} {'executions':>10} {'p50 ms':>8} {'p95 ms':>8}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one measure went.

    Attributes:
        slope_per_hour: By least squares, without the warm-up.
        is_flat: Whether the last third lies about where the first does; None: not judged, for it is noise of the machine.
    """

    measure: str
    first: float
    last: float
    slope_per_hour: float
    is_flat: bool | None

    def __str__(self) -> str:
        shown = {None: "not judged", True: "flat", False: "GROWS"}[self.is_flat]
        return f"{self.measure:>18}: {self.first:14,.1f} -> {self.last:14,.1f}, {self.slope_per_hour:+14,.1f} an hour: {shown}"

    def to_json(self) -> dict[str, object]:
        """The same for a file."""
        return asdict(self)


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """How each measure went.

    The first fifth of the samples, in which caches fill, does not count, nor do those before the last sandbox was started:
    a worker starts one more whenever all are busy, up to the number that it may have. If that goes on for two thirds of
    the time, processes grow.
    """
    if not samples:
        return []
    most = max(sample.processes for sample in samples)
    full = next(index for index, sample in enumerate(samples) if sample.processes == most)
    counted = samples[max(1, len(samples) // 5, full) :]
    third = max(1, len(counted) // 3)
    has_settled = 3 * full <= 2 * len(samples)
    found = [Verdict("processes", samples[0].processes, most, 0.0, has_settled)]
    for measure in ("rss_bytes", "file_descriptors", "threads", "database_bytes", "latency_p50_ms", "latency_p95_ms"):
        values = [float(getattr(sample, measure)) for sample in counted]
        if not values:
            continue
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        slope = 0.0
        if len({sample.minute for sample in counted}) > 1:
            slope = statistics.linear_regression([sample.minute / 60 for sample in counted], values).slope
        is_flat = None
        if measure in _MAY_GROW:
            share, noise = _MAY_GROW[measure]
            is_flat = last - first <= max(first * share, noise)
        found.append(Verdict(measure, first, last, slope, is_flat))
    return found


def resources_of(pids: Sequence[int]) -> tuple[int, int, int, int]:
    """Resident memory in bytes, open files and threads of these processes and their descendants, and how many they are."""
    rss_bytes = files = threads = processes = 0
    for pid in _with_descendants(pids):
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            # It has ended meanwhile.
            continue
        rss_bytes += int(status.get("VmRSS", "0 kB").split()[0]) * _KIB
        threads += int(status["Threads"])
        processes += 1
    return rss_bytes, files, threads, processes


def _with_descendants(pids: Sequence[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found += [pid, *_with_descendants(children)]
    return found
