"""What ``drtp local`` prints, and how it waits for its end.

Rules: results on stdout, talk on stderr; the first signal stops in order, the second at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from drtp_api.errors import DrtpError, ExitCode
from drtp_controller.local.cloud import Cloud
from drtp_controller.local.settings import LocalSettings

__all__ = ["run_local"]


def run_local(settings: LocalSettings, *, output: str) -> int:
    """Run the cloud until it is stopped; return the exit code.

    Raises:
        DrtpError: Why it did not start, or did not go on.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return asyncio.run(_run(settings, output))


async def _run(settings: LocalSettings, output: str) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    begun = False

    def on_signal() -> None:
        if stopped.is_set():
            # children follow their parent, so leaving now leaves nothing behind
            os._exit(ExitCode.INTERRUPTED)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    cloud = Cloud(settings, on_event=lambda event: _print(event, output))
    waiting = asyncio.create_task(stopped.wait())
    starting = asyncio.create_task(cloud.start())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return ExitCode.INTERRUPTED
        _print(starting.result(), output)
        begun = True
        ends: set[asyncio.Future[Any]] = {waiting, cloud.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if cloud.failed.done():
            raise DrtpError("DRTP-1000", f"the controller ended: {cloud.failed.exception()}")
    finally:
        waiting.cancel()
        if begun:
            if output != "json":
                print("Stopping.", file=sys.stderr)  # noqa: T201 - the command's talk
            await cloud.stop()
        if cloud.failed.done():
            cloud.failed.exception()
    return ExitCode.OK


def _print(event: dict[str, Any], output: str) -> None:
    if output == "json":
        text = json.dumps(event)
    elif event["type"] == "local_ready":
        text = _told(event)
    else:
        text = f"{event['name']} was started again (process {event['pid']})."
    print(text, flush=True)  # noqa: T201 - the command's result


def _told(event: dict[str, Any]) -> str:
    gateway = event["gateway"]
    servers = "\n".join(
        f"  {s['name']:<12} {s['city']}  tunnels at {s['tunnelAddress']}  process {s['pid']}" for s in event["servers"]
    )
    return (
        f"A cloud runs on this machine.\n\n"
        f"Gateway        {gateway['name']}, HTTP on {gateway['host']}:{gateway['httpPort']}\n"
        f"Registration   {event['registrationURL']}\n"
        f"Kubernetes     {event['apiURL']}\n"
        f"Servers\n{servers}\n\n"
        f"Expose something:   datumctl-serve localhost:8080 --public\n"
        f"Look inside:        kubectl --kubeconfig {event['kubeconfig']} get datum -A\n"
        f"Stop:               Ctrl-C"
    )
