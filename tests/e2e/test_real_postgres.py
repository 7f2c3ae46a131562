"""A real PostgreSQL through the whole cloud: psql, a dump restored through the tunnel, pgbench."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from drtp_testkit.cloud import LocalCloud

from .conftest import Postgres, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
def address(cloud: LocalCloud, postgres: Postgres) -> Iterator[tuple[str, ...]]:
    """The database, public; as client arguments."""
    port = free_port()
    with cloud.serve(f"tcp://localhost:{postgres.port}", "--public", "--port", str(port), "--name", "pg") as serve:
        ready = serve.ready()
        assert ready["verified"] == "service"
        (public,) = ready["addresses"]
        assert (public["protocol"].lower(), public["port"]) == ("tcp", port)
        yield ("-h", public["host"], "-p", str(public["port"]))
        serve.signal()
        assert serve.wait() == 0, serve.report()


def test_psql_reaches_the_database(address: tuple[str, ...], postgres: Postgres) -> None:
    assert postgres.run("psql", *address, "-Atc", "select 6 * 7", "postgres").stdout.strip() == "42"


def test_a_dump_restored_through_the_tunnel_is_the_same(address: tuple[str, ...], postgres: Postgres) -> None:
    direct = ("-h", "127.0.0.1", "-p", str(postgres.port))
    postgres.run("psql", *direct, "-c", "drop database if exists source", "postgres")
    postgres.run("psql", *direct, "-c", "drop database if exists copy", "postgres")
    postgres.run("createdb", *direct, "source")
    postgres.run("createdb", *direct, "copy")
    postgres.run(
        "psql", *direct, "-c", "create table t as select i, md5(i::text) m, repeat('x', i % 300) r from generate_series(1, 100000) i", "source"
    )  # fmt: skip
    dump = subprocess.Popen(
        [str(postgres.bin / "pg_dump"), *address, "-U", "postgres", "source"], stdout=subprocess.PIPE
    )
    restored = subprocess.run(
        [str(postgres.bin / "psql"), *address, "-U", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "copy"],
        stdin=dump.stdout, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert dump.stdout is not None
    dump.stdout.close()
    assert dump.wait(timeout=10) == 0
    assert restored.returncode == 0, restored.stderr
    query = "select count(*), md5(string_agg(i || m || r, ',' order by i)) from t"
    source, copy = (postgres.run("psql", *direct, "-Atc", query, db).stdout for db in ("source", "copy"))
    assert source == copy
    assert source.startswith("100000|")


def test_pgbench_runs_ten_seconds_without_a_failed_transaction(address: tuple[str, ...], postgres: Postgres) -> None:
    direct = ("-h", "127.0.0.1", "-p", str(postgres.port))
    postgres.run("psql", *direct, "-c", "drop database if exists bench", "postgres")
    postgres.run("createdb", *direct, "bench")
    postgres.run("pgbench", *direct, "-i", "-q", "-s", "1", "bench")
    out = postgres.run("pgbench", *address, "-c", "4", "-T", "10", "bench").stdout
    assert int(re.search(r"transactions actually processed: (\d+)", out).group(1)) > 100
    assert re.search(r"number of failed transactions: 0 ", out), out


def test_pgbench_with_a_connection_per_transaction(address: tuple[str, ...], postgres: Postgres) -> None:
    direct = ("-h", "127.0.0.1", "-p", str(postgres.port))
    postgres.run("psql", *direct, "-c", "drop database if exists bench2", "postgres")
    postgres.run("createdb", *direct, "bench2")
    postgres.run("pgbench", *direct, "-i", "-q", "-s", "1", "bench2")
    out = postgres.run("pgbench", *address, "-c", "4", "-C", "-T", "3", "-S", "bench2").stdout
    assert re.search(r"number of failed transactions: 0 ", out), out
