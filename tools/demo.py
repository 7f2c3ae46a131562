"""`./dev demo`: a whole cloud on this machine, a small web site in it, and its public address.

With --check: everything on free ports and in a temporary directory; the page is fetched through the public
address, `demo: ok` is printed and everything ends.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from drtp_testkit.cloud import CloudError, LocalCloud

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>DRTP demo</title>
<style>body{font:18px/1.5 system-ui;max-width:36em;margin:4em auto}code{background:#eee;padding:.1em .3em}</style>
<h1>It works</h1><p>This page is served by a small web server that listens on <code>127.0.0.1</code> only. You reached
it through a public gateway (Envoy), a tunnel server and an agent that dialled out: no port of it is open.</p></html>
"""


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the one page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page."""
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """Serve one visitor; one that leaves in the middle is nobody's error."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        """Say nothing: the demo's output is the address."""


@contextlib.contextmanager
def web_site() -> Iterator[int]:
    """Serve the page on a free loopback port for the length of the block."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def fetch(url: str, host: str, port: int) -> str:
    """Return the page behind the public URL, dialling the address given: .localhost needs no DNS that way."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", parts.path or "/", headers={"Host": parts.netloc})
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != http.HTTPStatus.OK:
            raise CloudError(f"{url} answered {answer.status}: {text[:200]}")
        return text
    finally:
        connection.close()


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="prove that it works, print `demo: ok` and end")
    parser.add_argument("--gateway", default="envoy", choices=["envoy", "direct"])
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        if args.check:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drtp-demo-")))
        else:
            state = Path(os.environ.get("DRTP_STATE_DIR") or Path(tempfile.gettempdir()) / f"drtp-demo-{os.getuid()}")
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        began = time.monotonic()
        port = stack.enter_context(web_site())
        cloud = stack.enter_context(LocalCloud(state, gateway=args.gateway, any_port=args.check))
        info = cloud.ready()
        serve = stack.enter_context(cloud.serve(f"localhost:{port}", "--public", "--name", "demo"))
        ready = serve.ready()
        address = ready["addresses"][0]
        text = fetch(ready["url"], address["host"], address["port"])
        if text != PAGE:
            raise CloudError("the page that came back is not the one that was served")
        if args.check:
            print("demo: ok")
            return 0
        servers = ", ".join(f"{s['name']} ({s['city']})" for s in ready["servers"])
        print(f"\n  {ready['url']}\n")
        print(f"  from the web server on 127.0.0.1:{port}, through the tunnel servers {servers}")
        print(f"  up in {time.monotonic() - began:.1f} s; stop with Ctrl-C\n")
        print(f"  look inside:  KUBECONFIG={info['kubeconfig']} kubectl get drtpservices,drtpconnections,drtpservers")
        with contextlib.suppress(KeyboardInterrupt):
            while cloud.running and serve.running:
                time.sleep(0.5)
            print("a part of the demo ended by itself:", file=sys.stderr)
            print((cloud if not cloud.running else serve).report(), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CloudError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
