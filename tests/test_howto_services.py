"""The how-to pages about starting, finding, scheduling, deleting and waiting run as they stand, on both databases."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from durable_monty import Worker
from durable_monty.config import Config
from support.workers import running

PAGES = Path(__file__).parent.parent / "docs" / "howto"


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)


def on(database_url, source):
    assert source.count("sqlite:///shop.db") == 1
    return source.replace("sqlite:///shop.db", database_url)


@pytest.mark.parametrize("page", ["start-and-find-executions.md", "schedules.md", "retention.md"])
def test_the_script_of_the_page_runs(database_url, tmp_path, page):
    (tmp_path / "shop.py").write_text(on(database_url, "\n".join(blocks(page))))
    done = subprocess.run(
        [sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_configuration_of_the_page_is_one(tmp_path):
    (text,) = blocks("retention.md", "toml")
    assert Config.model_validate(tomllib.loads(text)).retention.delete_after_seconds == 30 * 86_400


async def request(app, method, path, body=b""):
    """What an ASGI server does with one request; returns status and content."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path}, receive, send)
    start, content = sent
    return start["status"], json.loads(content["body"])


def test_the_web_application_of_the_page_serves(database_url, tmp_path, monkeypatch):
    (source,) = blocks("web-application.md")
    (tmp_path / "webshop.py").write_text(on(database_url, source))
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.spec_from_file_location("webshop", tmp_path / "webshop.py")
    webshop = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "webshop", webshop)
    spec.loader.exec_module(webshop)

    async def main():
        body = json.dumps({"customer": "ada", "cents": 700}).encode()
        assert await request(webshop.app, "POST", "/orders/o1", body) == (202, {"id": "o1"})
        assert await request(webshop.app, "POST", "/orders/o1", body) == (202, {"id": "o1"})
        waiting = [request(webshop.app, "GET", "/orders/o1") for _ in range(20)]
        found = await asyncio.gather(*waiting, request(webshop.app, "GET", "/orders/nobody"))
        assert found.pop() == (404, {"error": "there is no such order"})
        assert found == [(200, {"status": "completed", "output": "ada paid 700 cents"})] * 20

    with running(Worker(webshop.service.service)):
        asyncio.run(main())
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(webshop.app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
