"""The DRTP agent as a library: serve a local service through tunnels, from Python.

>>> async with drtp_agent.expose("localhost:8080", public=True) as tunnel:   # doctest: +SKIP
...     print(tunnel.url)

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drtp_agent.sdk import ExposedTunnel, expose, serve

__all__ = ["ExposedTunnel", "expose", "serve"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from drtp_agent import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
