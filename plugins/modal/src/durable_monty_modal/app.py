"""The Modal app that runs calls: `modal deploy` takes a module of a few lines that calls `build_app`.

from durable_monty_modal.app import build_app

app = build_app("shop", modules=["shop"], packages=["httpx"])
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import modal

from durable_monty.errors import ConfigError
from durable_monty.functions import ALLOW_VARIABLE, Function
from durable_monty_modal import remote
from durable_monty_modal.sizes import RESOURCE_KEYS, name_of, size_of


def build_app(
    name: str = "durable-monty",
    *,
    modules: Sequence[str],
    packages: Sequence[str] = (),
    allow: Sequence[str] = (),
    executor: str | None = None,
    image: modal.Image | None = None,
    function: str = "run",
    secrets: Sequence[str] = (),
    sizes: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> modal.App:
    """An app with a function `run`, and one more for each set of resources that a `@function` asks for.

    The image holds the core's and this plug-in's own files (as they are installed here, so that both sides have one
    version), the modules, and the packages. Only the functions that are named here can be run.

    Args:
        name: The app's name; `app` of the executor's table.
        modules: Modules with `@function`s. They are imported here and put into the image.
        packages: What their code needs, as pip takes it.
        allow: Patterns of dotted paths of undecorated functions that may run too.
        executor: The executor's name: functions that name another one by `@function(executor=...)` are left out.
        image: The image to begin with; default: Debian with this machine's Python version.
        function: The name of the function without resources; `function` of the executor's table.
        secrets: Names of Modal secrets, such as one that holds `DURABLE_MONTY_SIGNING_KEY`.
        sizes: Further sets of resources, for timeouts that a configuration file sets.
        options: Further arguments of `modal.App.function`, for every function, such as `volumes` or `max_containers`.

    Raises:
        ConfigError: A `resources=` holds something that Modal has no word for, or nothing would be allowed to run.
    """
    found = [item for module in modules for item in _functions_of(module) if _is_for(item, executor)]
    wanted = [size_of(item.options.resources, item.options.timeout_seconds) for item in found]
    for item, size in zip(found, wanted, strict=True):
        _check_resources(item.path, size)
    allowed = [*(item.path for item in found), *allow]
    if not allowed:
        raise ConfigError(
            f"building the Modal app {name!r}: there is no @function in {', '.join(modules) or 'no module'}; name "
            "modules that have some, or allow undecorated ones by `allow`"
        )
    app = modal.App(name, include_source=False)
    built = _image(image, modules, packages, allowed)
    mounted = [modal.Secret.from_name(secret) for secret in secrets]
    by_name = {name_of(function, size): size for size in [{}, *wanted, *(size_of(size, None) for size in sizes)]}
    for deployed_name, size in by_name.items():
        app.function(name=deployed_name, image=built, secrets=mounted, **{**options, **size})(remote.run)
    return app


def _functions_of(module: str) -> list[Function[Any]]:
    root = module.partition(".")[0]
    found = [item for item in vars(importlib.import_module(module)).values() if isinstance(item, Function)]
    return [item for item in found if item.path.partition(".")[0] == root]


def _is_for(item: Function[Any], executor: str | None) -> bool:
    return executor is None or item.options.executor in (None, executor)


def _check_resources(path: str, size: Mapping[str, Any]) -> None:
    unknown = sorted(set(size) - set(RESOURCE_KEYS))
    if unknown:
        raise ConfigError(
            f"building the Modal app: resources of {path!r} hold {', '.join(map(repr, unknown))}; Modal takes "
            f"{', '.join(RESOURCE_KEYS)}"
        )


def _image(
    image: modal.Image | None, modules: Sequence[str], packages: Sequence[str], allowed: Sequence[str]
) -> modal.Image:
    image = image if image is not None else modal.Image.debian_slim()
    if packages:
        image = image.pip_install(*packages)
    image = image.env({ALLOW_VARIABLE: ",".join(allowed), remote.VERSION_VARIABLE: version("durable-monty-core")})
    # The remote side is standard library only, so its files are enough: what `pip install --no-deps` would bring.
    roots = dict.fromkeys(["durable_monty", "durable_monty_modal", *(module.partition(".")[0] for module in modules)])
    return image.add_local_python_source(*roots)
