"""A catalogue of pictures. Nothing here says where a function runs: `durable-monty.toml` does."""

from __future__ import annotations

import hashlib
from asyncio import gather

from durable_monty import function, workflow


@function
def list_pictures(count: int) -> list[str]:
    return [f"picture-{number:03d}" for number in range(count)]


@function
def shrink(picture: str) -> dict[str, str]:
    return {"picture": picture, "thumbnail": f"{picture}-small"}


@function
def describe(picture: str) -> str:
    # Where a model would look at it.
    return ("a boat", "a cat", "a tree")[hashlib.sha256(picture.encode()).digest()[0] % 3]


@function
def page(picture: str, thumbnail: str, text: str) -> str:
    return f'<figure><img src="{thumbnail}.jpg" alt="{picture}"><figcaption>{text}</figcaption></figure>'


@workflow
async def catalogue(count: int) -> dict[str, int]:
    pictures = await list_pictures(count)
    small = gather(*[shrink(picture) for picture in pictures])
    texts = gather(*[describe(picture) for picture in pictures])
    found = list(zip(await small, await texts, strict=True))
    pages = await gather(*[page(item["picture"], item["thumbnail"], text) for item, text in found])
    counts = {"pages": len(pages)}
    for kind in ("a boat", "a cat", "a tree"):
        counts[kind] = len([text for _, text in found if text == kind])
    return counts
