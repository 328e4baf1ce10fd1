"""Lists: every filter, in pages, each of which is a walk along an index however many executions there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from durable_monty import workflow
from durable_monty.store.listing import Filter, page_query
from support.functions import add


@workflow
async def double(n: int) -> int:
    return await add(n, n)


@pytest.fixture
def filled(service):
    """Six executions, a second apart: two workflows, two tags; the last two have not ended."""
    now = 1_000_000.0
    service.runtime.clock = lambda: now
    for index in range(6):
        if index == 4:
            for name in ("e0", "e1", "e2", "e3"):
                service.process_execution(name)
                service.complete_call(name, 0, 0)
                service.process_execution(name)
            now = 1_001_000.0
        tags = {"parity": "even" if index % 2 == 0 else "odd", "third": str(index % 3)}
        start = (double, None) if index < 3 else ("await add(n, 1)", [add])
        service.start_execution(*start, {"n": index}, execution_id=f"e{index}", tags=tags)
        now += 1
    return service


def ids(found):
    return [item["execution_id"] for item in found]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "543210"),
        ({"status": "completed"}, "3210"),
        ({"status": "failed"}, ""),
        ({"workflow": "double"}, "210"),
        ({"workflow": "nobody"}, ""),
        ({"tags": {"parity": "odd"}}, "531"),
        ({"tags": {"parity": "odd", "third": "2"}}, "5"),
        ({"tags": {"parity": "odd"}, "status": "completed"}, "31"),
        ({"tags": {"parity": "even"}, "workflow": "double"}, "20"),
        ({"since": 1_000_900.0}, "54"),
        ({"until": 1_000_900.0, "limit": 2}, "32"),
        ({"since": datetime.fromtimestamp(1_000_900, UTC), "tags": {"parity": "even"}}, "4"),
        ({"status": "completed", "workflow": "double", "until": 1_000_900.0}, "210"),
    ],
)
def test_executions_are_found_by_every_filter(filled, asked, expected):
    assert ids(filled.list_executions(**asked)) == [f"e{index}" for index in expected]


@pytest.mark.parametrize("asked", [{}, {"tags": {"parity": "even"}}, {"workflow": "double"}, {"status": "completed"}])
def test_pages_follow_each_other_without_gap_or_repetition(filled, asked):
    whole = ids(filled.list_executions(**asked))
    pages, cursor = [], None
    while page := filled.list_executions(limit=2, before=cursor, **asked):
        pages += ids(page)
        cursor = page[-1]["cursor"]
    assert pages == whole


def test_executions_of_the_same_moment_are_each_listed_once(service):
    service.runtime.clock = lambda: 1_000_000.1
    for name in "abcde":
        service.start_execution("1", execution_id=name)
    first = service.list_executions(limit=2)
    second = service.list_executions(limit=2, before=first[-1]["cursor"])
    assert ids(first + second) == ["e", "d", "c", "b"]


def test_a_workflow_is_found_by_its_name_under_every_source(service):
    for index, code in enumerate(["1", "2", "1", "3"]):
        service.start_execution(code, execution_id=f"e{index}", filename="report.py")
    assert ids(service.list_executions(workflow="report", limit=3)) == ["e3", "e2", "e1"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"status": "done"}, "no status 'done'; there are scheduled, running"),
        ({"limit": 0}, "limit is 0; it must be 1 to 10000"),
        ({"limit": "5"}, "limit is '5'"),
        ({"before": "x"}, "before is 'x', which is no cursor"),
        ({"before": "x~y"}, "no cursor"),
        ({"since": datetime(2026, 1, 1)}, "since is .* which has no time zone"),  # noqa: DTZ001
        ({"until": "yesterday"}, "until is 'yesterday'; it must be an aware datetime or seconds"),
        ({"since": float("nan")}, "since is nan"),
        ({"tags": {"a": 1}}, "listing executions: tag 'a' is 1"),
    ],
)
def test_what_cannot_be_asked_for_is_said(lite_service, asked, message):
    with pytest.raises(ValueError, match=message):
        lite_service.list_executions(**asked)


COUNT = 20_000


def generate(store):
    """Executions of ten workflows: one in a thousand failed, one in ten with a tag."""
    postgresql = store._connections.is_postgresql
    series = (
        f"generate_series(1, {COUNT}) AS s(n)"
        if postgresql
        else f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {COUNT}) SELECT n FROM s) AS s"
    )
    status = "CASE WHEN n % 1000 = 7 THEN 'failed' ELSE 'completed' END"
    with store._connections.write() as connection:
        connection.execute(
            text(
                "INSERT INTO executions (id, workflow, status, version, next_batch, inputs, created_at, ended_at, "
                f"crashes, is_cancel_delivered) SELECT 'e' || n, 'digest' || n % 10, {status}, 1, 0, '{{}}', "
                f"1000 + n / 10, 2000 + n, 0, 0 FROM {series}"
            )
        )
        connection.execute(
            text(
                "INSERT INTO tags (execution_id, name, value, created_at) "
                f"SELECT 'e' || n, 'customer', 'c' || n % 100, 1000 + n / 10 FROM {series} WHERE n % 10 < 5"
            )
        )
    with store._connections.write() as connection:
        connection.execute(text("ANALYZE"))


def plan(store, query):
    """What the database says that it will do."""
    with store._connections.read() as connection:
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        prefix = "EXPLAIN" if store._connections.is_postgresql else "EXPLAIN QUERY PLAN"
        rows = connection.exec_driver_sql(f"{prefix} {str(compiled).replace('%', '%%')}").all()
    return "\n".join(str(row[-1]) for row in rows)


DEEP = (1500.0, "e5000")
WALKS = {
    "all": (Filter(before=DEEP), None),
    "first page": (Filter(), None),
    "status": (Filter(status="failed", before=DEEP), None),
    "time": (Filter(since=1200.0, until=1700.0, before=DEEP), None),
    "tag": (Filter(tags=(("customer", "c3"),), before=DEEP), None),
    "tag and status": (Filter(status="completed", tags=(("customer", "c3"),), before=DEEP), None),
    "workflow": (Filter(workflow="x", before=DEEP), "digest3"),
    "workflow and status": (Filter(workflow="x", status="completed", before=DEEP), "digest3"),
}


def test_every_page_is_a_walk_along_an_index(store):
    """No sorting and no reading of the whole table: what a page costs does not depend on how many there are."""
    generate(store)
    for name, (chosen, digest) in WALKS.items():
        found = plan(store, page_query(chosen, 100, digest))
        assert not re.search(r"TEMP B-TREE|\bSort\b|Seq Scan|SCAN executions$|SCAN tags$", found, re.MULTILINE), (
            f"{name}:\n{found}"
        )
        assert re.search("executions_created_at|executions_status|executions_workflow|tags_value", found), name


def test_ended_executions_are_found_along_an_index(store):
    from durable_monty.store.retention import _batch

    generate(store)
    found = plan(store, _batch(2500.0, ["completed", "failed", "cancelled"], 100))
    assert "executions_ended_at" in found
    assert not re.search(r"TEMP B-TREE|\bSort\b|Seq Scan on executions$", found, re.MULTILINE), found


def test_listing_tells_times_that_people_can_give_back(filled):
    """A time that was read is a time that can be asked for."""
    found = filled.list_executions(limit=1)[0]
    at = datetime.fromtimestamp(found["created_at"], UTC)
    assert ids(filled.list_executions(since=at, until=at + timedelta(seconds=1))) == [found["execution_id"]]
