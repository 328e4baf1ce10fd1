"""Promises about many calls and many open jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from durable_monty.models import Capabilities, Job
from durable_monty.testing import functions
from durable_monty.testing.executors.driver import Driver, make_call
from durable_monty.testing.executors.settings import AboutItself

_EVENTS = ("socket.connect", "subprocess.Popen", "os.posix_spawn", "os.fork")
_counters: list[list[int]] = []
_is_listening = False


class Load(AboutItself):
    """What holds when there is much of everything."""

    def test_many_calls_all_come_back(self, kit: Driver, can: Capabilities) -> None:
        """No more at a time than `max_in_flight`, as the core keeps it."""
        wave = min(can.max_in_flight or self.largest_batch, self.largest_batch)
        numbers = list(range(2 * wave))
        values = []
        for start in range(0, len(numbers), wave):
            replies = kit.run(*[make_call(functions.echo, number) for number in numbers[start : start + wave]])
            values += [reply.value for reply in replies]
        wrong = [number for number, value in zip(numbers, values, strict=True) if value != number]
        assert not wrong, f"of {len(numbers)} calls {len(wrong)} came back wrong"

    def test_open_jobs_are_asked_about_in_a_bounded_number_of_requests(self, kit: Driver, can: Capabilities) -> None:
        """A request for each open job, every second, is what gets an account suspended."""
        jobs = [Job(f"kit-of-nobody-{number}-1") for number in range(self.open_jobs)]
        kit.run(make_call(functions.echo, 1))
        polls = -(-len(jobs) // can.max_batch)
        allowed = polls * self.requests_per_hook
        before = self.requests_made()
        with _counted() as count:
            for start in range(0, len(jobs), can.max_batch):
                kit.poll(jobs[start : start + can.max_batch])
        after = self.requests_made()
        made = count[0] if before is None or after is None else after - before
        assert made <= allowed, (
            f"asking about {len(jobs)} open jobs in {polls} polls took {made} requests; "
            f"at most {self.requests_per_hook} for each poll are allowed"
        )


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts connections and processes that this process starts."""
    global _is_listening
    if not _is_listening:
        # A hook cannot be taken away again; without a counter it does nothing.
        sys.addaudithook(_listen)
        _is_listening = True
    count = [0]
    _counters.append(count)
    try:
        yield count
    finally:
        _counters.remove(count)


def _listen(event: str, _arguments: object) -> None:
    if _counters and event in _EVENTS:
        for count in _counters:
            count[0] += 1
