"""Extract, transform, load: a list of files, a few at the same time, into one table."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path
from typing import Any

from durable_monty import Retry, function, workflow
from durable_monty.flow import map, publish, settle


@function
def write_sources(folder: str, files: int, rows: int) -> list[str]:
    """Makes the files that the example reads; the last one is broken."""
    Path(folder).mkdir(exist_ok=True)
    for number in range(files):
        path = Path(folder) / f"{number:03}.csv"
        lines = [f"shop-{number},{row},{number * row}" for row in range(rows)]
        path.write_text("\n".join(lines) if number < files - 1 else "not,a,number")
    return sorted(str(path) for path in Path(folder).glob("*.csv"))


@function(retry=Retry(attempts=3, first_delay_seconds=0.1, on=(OSError,)))
def extract(path: str) -> list[list[str]]:
    with Path(path).open() as file:
        return list(csv.reader(file))


@function
def transform(rows: list[list[str]]) -> list[tuple[str, int]]:
    return [(shop, int(cents)) for shop, _, cents in rows]


@function(concurrency=1)
def load(source: str, rows: list[tuple[str, int]]) -> int:
    """Replaces what came from this source before, so that running it twice does no harm."""
    with sqlite3.connect("sales.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS sales (source TEXT, shop TEXT, cents INTEGER)")
        connection.execute("DELETE FROM sales WHERE source = ?", (source,))
        connection.executemany("INSERT INTO sales VALUES (?, ?, ?)", [(source, *row) for row in rows])
    connection.close()
    return len(rows)


async def one(path: str) -> int:
    rows = await load(path, await transform(await extract(path)))
    return int(rows)


async def settled(path: str) -> Any:
    return (await settle(one(path)))[0]


@workflow
async def etl(folder: str = "sources", files: int = 20, rows: int = 100, at_once: int = 4) -> dict[str, Any]:
    paths = await write_sources(folder, files, rows)
    publish("files", len(paths))
    ends = await map(settled, paths, limit=at_once)
    return {
        "rows": sum(end for end in ends if isinstance(end, int)),
        "failed": [path for path, end in zip(paths, ends, strict=True) if not isinstance(end, int)],
    }
