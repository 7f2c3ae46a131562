"""The registration API of a control plane in this process, over real HTTP, and those who call it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import aiohttp
import attrs

from drtp_api.grants import b64url, generate_key, public_key_bytes, sign
from drtp_controller.registration.app import create_app
from drtp_controller.registration.auth import Identity, StaticTokens
from drtp_controller.registration.hub import Hub
from drtp_controller.registration.server import HttpServer
from drtp_controller.testing import control_plane

TOKEN = "a-user's-token"


@attrs.define
class Client:
    """What an agent or a command does over HTTP."""

    plane: object
    url: str
    session: aiohttp.ClientSession

    async def call(self, method, path, body=None, *, token=TOKEN, raw=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = raw if raw is not None else (json.dumps(body) if body is not None else None)
        async with self.session.request(method, self.url + path, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None

    async def register(self, agent, *, expect=201, token=TOKEN, **changes):
        status, body = await self.call("POST", "/v1alpha1/connections", agent.request(**changes), token=token)
        assert status == expect, body
        return body


class Agent:
    """An agent's identity."""

    def __init__(self, instance="a", service="web", epoch=5):
        self.key = generate_key()
        self.instance = instance * 32
        self.service = service
        self.epoch = epoch

    def request(self, **changes):
        body = {
            "service": {"name": self.service},
            "publicKey": b64url(public_key_bytes(self.key)),
            "instanceID": self.instance,
            "epoch": self.epoch,
            "definition": {"application": {"protocol": "HTTP", "port": 8080}, "exposure": {"enabled": True}},
            "version": "0.1.0",
            "roundTrips": {"edge-a": 12.5},
        }
        return {k: v for k, v in (body | changes).items() if v is not None}

    def renewal(self, connection, now):
        message = f"drtp grant renewal\0default/{connection}\0{now}".encode()
        return {"issuedAt": now, "proof": b64url(sign(self.key, message))}


@contextlib.asynccontextmanager
async def api(directory, *, edges=("edge-a", "edge-b"), **options):
    async with control_plane(directory, **options) as plane:
        for name, city in zip(edges, ("NYC", "AMS", "SIN"), strict=False):
            await plane.edge(name, city, lease_seconds=3600)
        hub = Hub(plane.controller)
        app = create_app(plane.registrar, StaticTokens({TOKEN: Identity("user")}), hub)
        sock = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(app, sock)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                yield Client(plane, f"http://127.0.0.1:{sock.getsockname()[1]}", session)
        finally:
            hub.close()
            await server.stop()


def run(scenario, *, seconds=60):
    asyncio.run(asyncio.wait_for(scenario, seconds))


def tcp(port=0, **exposure):
    return {
        "application": {"protocol": "TCP", "port": 5432},
        "exposure": {"enabled": True, "port": port, **exposure},
    }
