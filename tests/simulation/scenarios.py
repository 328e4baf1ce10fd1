"""The workflows that are simulated."""

from __future__ import annotations

from durable_monty import Retry, function, workflow
from durable_monty.flow import race


@function
async def work(name: str) -> str:
    return name


@function(retry=Retry(attempts=3, first_delay_seconds=0.5))
async def flaky(name: str) -> str:
    return name


@workflow
async def minor(name: str) -> list[str]:
    return [await work(f"{name}1"), await flaky(f"{name}2")]


@workflow
async def lasting(name: str) -> str:
    try:
        await race(work(f"{name}1"), work(f"{name}2"))
        return await work(f"{name}3")
    finally:
        await work(f"{name}c")


HEAD = """
from asyncio import gather, sleep
from datetime import datetime
from durable_monty.flow import race, timeout, settle, as_completed, signal, child, start_child, publish, emit
def shown(x):
    return 'failed' if isinstance(x, Exception) else x
"""
SOURCES = {
    "chain": "[await flaky(f'c{i}') for i in range(3)]",
    "fan": """
async def branch(i):
    a = await flaky(f'a{i}')
    return [a, await work(f'b{i}')]
[shown(x) for x in await settle(branch(0), branch(1), branch(2), work('d'))]
""",
    "race": """
async def lane(i):
    try:
        return [await work(f'x{i}'), await flaky(f'y{i}')]
    finally:
        await work(f'z{i}')
out = []
try:
    out.append(list(await race(lane(0), lane(1), sleep(9))))
except ValueError:
    out.append('failed')
[*out, await flaky('after')]
""",
    "timeout": """
try:
    first = await timeout(gather(work('t0'), work('t1')), 3)
except TimeoutError:
    first = await flaky('late')
except ValueError:
    first = 'failed'
now = datetime.now().isoformat()
[first, await flaky(f'at {now}')]
""",
    "signals": """
async def two():
    return [await signal('s'), await signal('s')]
got, other = await gather(two(), settle(work('beside')))
try:
    third = await signal('s', timeout_seconds=5)
except TimeoutError:
    third = None
[got, shown(other[0]), third, list(await race(signal('s'), sleep(2)))]
""",
    "children": """
results = await settle(child('minor', inputs={'name': 'm'}), child('minor', inputs={'name': 'n'}))
won = await race(child('lasting', inputs={'name': 'l'}), sleep(4))
await start_child('lasting', inputs={'name': 'k'})
[[shown(x) for x in results], won[0], await flaky('end')]
""",
    "stream": """
out = []
for item in as_completed([work('i0'), race(work('i1'), sleep(5)), flaky('i2')]):
    try:
        out.append(await item)
        emit('log', len(out))
    except ValueError:
        out.append('failed')
publish('state', len(out))
await sleep(1)
[x if isinstance(x, str) else list(x) for x in out]
""",
}
"""By name."""
CHILDREN = [minor, lasting]
FUNCTIONS = [work, flaky]
