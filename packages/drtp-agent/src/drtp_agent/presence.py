"""Whether something listens on the target, asked before an agent starts.

Rules: one connection, closed at once, nothing said.
What must not live here: dialling for visitors.
"""

from __future__ import annotations

import asyncio

from drtp_agent.target import Target
from drtp_api.errors import DrtpError

__all__ = ["check_target"]


async def check_target(target: Target) -> None:
    """Prove that something listens on the target.

    Raises:
        DrtpError: DRTP-4001.
    """
    try:
        async with asyncio.timeout(5.0):
            if target.path is not None:
                _, writer = await asyncio.open_unix_connection(target.path)
            else:
                _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError) as error:
        words = "no answer within 5 s" if isinstance(error, TimeoutError) else _reason(error)
        raise DrtpError("DRTP-4001", f"nothing listens on {target.address}: {words}") from error
    writer.close()


def _reason(error: OSError) -> str:
    return "connection refused" if isinstance(error, ConnectionRefusedError) else (error.strerror or str(error))
