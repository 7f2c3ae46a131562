from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import Backoff, Conflict, WorkQueue, WorkQueueState

# ---- decisions


def taken(queue: WorkQueueState[str], now: float = 0.0) -> list[str]:
    keys = []
    while (key := queue.next_key(now)) is not None:
        keys.append(key)
    return keys


def test_a_key_that_waits_is_not_added_twice():
    queue: WorkQueueState[str] = WorkQueueState()
    for key in "abab":
        queue.add(key)
    assert taken(queue) == ["a", "b"]


def test_a_key_added_while_in_work_runs_once_more_and_not_beside_itself():
    queue: WorkQueueState[str] = WorkQueueState()
    queue.add("a")
    assert queue.next_key(0.0) == "a"
    queue.add("a")
    queue.add("a")
    assert queue.next_key(0.0) is None
    queue.succeeded("a")
    assert taken(queue) == ["a"]
    queue.succeeded("a")
    assert queue.idle


def test_a_delayed_key_waits_for_its_time_and_the_earliest_delay_counts():
    queue: WorkQueueState[str] = WorkQueueState()
    queue.add_after("a", 10.0, now=0.0)
    queue.add_after("a", 5.0, now=0.0)
    queue.add_after("a", 20.0, now=0.0)
    assert queue.next_due() == 5.0
    assert taken(queue, now=4.9) == []
    assert taken(queue, now=5.0) == ["a"]
    queue.succeeded("a")
    assert taken(queue, now=100.0) == []
    assert queue.next_due() is None


def test_failures_delay_only_their_own_key_and_success_forgets_them():
    queue: WorkQueueState[str] = WorkQueueState(Backoff(initial=1.0, maximum=8.0))
    delays, now = [], 0.0
    for _ in range(5):
        queue.add("bad")
        now += 100
        assert taken(queue, now) == ["bad"]
        delays.append(queue.failed("bad", now, random=0.999999))
        now += delays[-1]
        assert taken(queue, now) == ["bad"]
        queue.interrupted("bad")
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(8.0, rel=0.01)
    queue.add("good")
    assert "good" in taken(queue, now)
    queue.succeeded("bad")
    assert queue.failures("bad") == 0


def test_a_failed_key_that_was_added_meanwhile_runs_at_once():
    queue: WorkQueueState[str] = WorkQueueState()
    queue.add("a")
    queue.next_key(0.0)
    queue.add("a")
    queue.failed("a", 0.0, 0.5)
    assert taken(queue, 0.0) == ["a"]


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done"]), st.sampled_from("abc"))))
def test_no_key_is_ever_lost_or_worked_on_twice_at_once(steps: list[tuple[str, str]]):
    queue: WorkQueueState[str] = WorkQueueState()
    busy: set[str] = set()
    wanted: set[str] = set()
    for step, key in steps:
        match step:
            case "add":
                queue.add(key)
                wanted.add(key)
            case "take":
                got = queue.next_key(0.0)
                if got is not None:
                    assert got not in busy
                    busy.add(got)
                    wanted.discard(got)
            case _:
                if key in busy:
                    queue.succeeded(key)
                    busy.discard(key)
    for key in busy:
        queue.succeeded(key)
    assert set(taken(queue)) == wanted


# ---- the shell


def test_workers_run_different_keys_side_by_side_and_one_key_never_beside_itself():
    async def main():
        queue: WorkQueue[str] = WorkQueue()
        running: set[str] = set()
        most, runs = 0, []
        gate = asyncio.Event()

        async def reconcile(key: str) -> None:
            nonlocal most
            assert key not in running
            running.add(key)
            most = max(most, len(running))
            runs.append(key)
            await gate.wait()
            running.discard(key)

        task = asyncio.create_task(queue.run(reconcile, workers=2))
        for key in "aab":
            queue.add(key)
        while len(runs) < 2:
            await asyncio.sleep(0)
        queue.add("a")
        gate.set()
        await queue.join()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert most == 2
        assert sorted(runs) == ["a", "a", "b"]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_failing_key_is_reported_and_tried_again():
    async def main():
        reported = []
        queue: WorkQueue[str] = WorkQueue(
            backoff=Backoff(initial=0.001, maximum=0.002),
            on_error=lambda key, error: reported.append((key, str(error))),
        )
        done = asyncio.Event()
        tries = 0

        async def reconcile(_key: str) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise RuntimeError("not yet")
            done.set()

        task = asyncio.create_task(queue.run(reconcile))
        queue.add("a")
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert reported == [("a", "not yet")] * 2

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_conflict_is_tried_again_soon_and_not_reported_as_an_error():
    async def main():
        reported = []
        queue: WorkQueue[str] = WorkQueue(on_error=lambda key, error: reported.append(key))
        done = asyncio.Event()
        tries = 0

        async def reconcile(_key: str) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise Conflict("stale")
            done.set()

        task = asyncio.create_task(queue.run(reconcile))
        queue.add("a")
        async with asyncio.timeout(5):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert reported == []

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_returned_delay_runs_the_key_again():
    async def main():
        queue: WorkQueue[str] = WorkQueue()
        runs = 0
        done = asyncio.Event()

        async def reconcile(_key: str) -> float | None:
            nonlocal runs
            runs += 1
            if runs == 2:
                done.set()
                return None
            return 0.001

        task = asyncio.create_task(queue.run(reconcile))
        queue.add("a")
        async with asyncio.timeout(5):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert runs == 2

    asyncio.run(asyncio.wait_for(main(), 10))


def test_work_cut_short_by_a_stop_waits_for_the_next_run():
    async def main():
        queue: WorkQueue[str] = WorkQueue()
        started = asyncio.Event()

        async def forever(_key: str) -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(queue.run(forever))
        queue.add("a")
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert queue.state.next_key(0.0) == "a"

    asyncio.run(asyncio.wait_for(main(), 10))
