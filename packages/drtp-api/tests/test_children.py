"""Children: they die with their parent, say their last words, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from drtp_api.children import MAX_LINE, TAIL_LINES, Child, ChildSpec, RestartPolicy, Supervisor


def python(source: str, **options: object) -> ChildSpec:
    return ChildSpec(name="test", command=(sys.executable, "-I", "-u", "-c", source), **options)  # type: ignore[arg-type]


def eventually(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_pauses_double_up_to_the_maximum():
    policy = RestartPolicy(base=0.5, maximum=3.0, good_run=60.0)
    policy.handle_start(0.0)
    assert [policy.handle_end(float(i)) for i in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_good_run_is_forgiven():
    policy = RestartPolicy(base=0.5, maximum=3.0, good_run=60.0)
    policy.handle_start(0.0)
    policy.handle_end(1.0)
    policy.handle_end(2.0)
    policy.handle_start(10.0)
    assert policy.handle_end(70.0) == 0.5


def test_a_thousand_failures_do_not_overflow():
    policy = RestartPolicy(base=0.5, maximum=3.0)
    policy.handle_start(0.0)
    assert {policy.handle_end(0.0) for _ in range(2000)} == {0.5, 1.0, 2.0, 3.0}


def test_output_reaches_the_callback_the_tail_and_the_log(tmp_path: Path):
    lines: list[str] = []

    async def main() -> Child:
        spec = python("import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('no newline')",
                      log_file=tmp_path / "child.log")  # fmt: skip
        child = await Child.start(spec, on_line=lines.append)
        assert await child.wait() == 0
        return child

    child = asyncio.run(main())
    assert lines == ["one", "two", "no newline"]
    assert child.tail == "one\ntwo\nno newline"
    assert (tmp_path / "child.log").read_text() == "one\ntwo\nno newline"
    assert (tmp_path / "child.log").stat().st_mode & 0o777 == 0o600


def test_the_tail_is_bounded_in_lines_and_line_length():
    async def main() -> str:
        child = await Child.start(python(f"print('x' * 100000); [print(i) for i in range({TAIL_LINES - 1})]"))
        await child.wait()
        return child.tail

    lines = asyncio.run(main()).split("\n")
    assert len(lines) == TAIL_LINES
    assert lines[-1] == str(TAIL_LINES - 2)
    assert max(map(len, lines)) <= MAX_LINE


def test_stop_asks_first():
    source = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(7)); print('up'); time.sleep(60)"

    async def main() -> int:
        up = asyncio.Event()
        child = await Child.start(python(source), on_line=lambda _: up.set())
        await up.wait()
        code = await child.stop()
        assert await child.stop() == code
        return code

    assert asyncio.run(main()) == 7


def test_stop_kills_a_child_that_does_not_listen():
    source = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"

    async def main() -> int:
        up = asyncio.Event()
        child = await Child.start(python(source), on_line=lambda _: up.set())
        await up.wait()
        return await child.stop(timeout=0.05)

    assert asyncio.run(main()) == -signal.SIGKILL


def test_a_grandchild_that_keeps_the_pipe_does_not_delay_the_end():
    source = "import subprocess,sys; print(subprocess.Popen(['sleep', '30']).pid)"

    async def main() -> tuple[int, str]:
        child = await Child.start(python(source))
        async with asyncio.timeout(5):
            return await child.wait(), child.tail

    code, pid = asyncio.run(main())
    assert code == 0
    os.kill(int(pid), signal.SIGKILL)


def test_a_program_that_does_not_exist_is_an_os_error(tmp_path: Path):
    async def main() -> None:
        await Child.start(ChildSpec(name="x", command=("/nonexistent/program",), log_file=tmp_path / "log"))

    with pytest.raises(FileNotFoundError):
        asyncio.run(main())


def test_a_child_may_open_more_files_than_we_may():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft if hard == soft else soft + 1

    async def main() -> str:
        child = await Child.start(
            python("import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])", open_files=wanted)
        )
        await child.wait()
        return child.tail

    assert int(asyncio.run(main())) == wanted


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills orphans")
def test_a_child_dies_when_its_parent_is_killed():
    source = """
import asyncio, sys
from drtp_api.children import Child, ChildSpec
async def main():
    child = await Child.start(ChildSpec(name="x", command=("sleep", "60")))
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
    finally:
        parent.kill()
        parent.communicate()
    assert eventually(lambda: is_gone(pid))


def test_a_killed_child_is_started_again():
    async def main() -> tuple[int, list[int], int]:
        started: list[Child] = []
        ended: list[int] = []
        again = asyncio.Event()

        def on_start(child: Child) -> None:
            started.append(child)
            if len(started) == 2:
                again.set()

        supervisor = Supervisor(
            ChildSpec(name="x", command=("sleep", "60")), policy=RestartPolicy(base=0.01),
            on_start=on_start, on_end=lambda _, code: ended.append(code),
        )  # fmt: skip
        child = await supervisor.start()
        child.send_signal(signal.SIGKILL)
        async with asyncio.timeout(5):
            await again.wait()
        assert supervisor.child is started[1]
        await supervisor.stop()
        await supervisor.stop()
        return supervisor.restarts, ended, len(started)

    assert asyncio.run(main()) == (1, [-signal.SIGKILL], 2)


def test_a_stopped_supervisor_leaves_no_child():
    async def main() -> int:
        supervisor = Supervisor(ChildSpec(name="x", command=("sleep", "60")))
        pid = (await supervisor.start()).pid
        await supervisor.stop()
        return pid

    pid = asyncio.run(main())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        pytest.fail("the child still runs")
