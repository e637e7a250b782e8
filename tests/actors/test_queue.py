"""Workers and driver meet in the queue of jobs, whoever is there first."""

from __future__ import annotations

import asyncio

from unfused.actors import JobQueue


def test_a_worker_waits_for_a_job_and_the_driver_for_what_came_of_it():
    async def meet():
        queue = JobQueue()
        worker = asyncio.create_task(queue.next(0))
        driver = asyncio.create_task(queue.outcome(0, 5.0))
        await asyncio.sleep(0)
        assert not worker.done()
        await queue.put(b"job")
        assert await worker == b"job"
        await queue.finish(0, b"facts")
        assert await driver == b"facts"

    asyncio.run(meet())


def test_the_driver_hears_in_time_that_nothing_has_come():
    async def look():
        return await JobQueue().outcome(0, 0.01)

    assert asyncio.run(look()) is None


def test_a_worker_that_replaces_a_lost_one_begins_with_what_is_unfinished():
    async def replace():
        queue = JobQueue()
        for job in (b"done", b"lost"):
            await queue.put(job)
        await queue.finish(0, b"facts")
        return await queue.next(await queue.first_unfinished())

    assert asyncio.run(replace()) == b"lost"


def test_a_closed_queue_ends_workers_after_the_jobs_that_are_there():
    async def close():
        queue = JobQueue()
        await queue.put(b"last")
        await queue.close()
        return await queue.next(0), await queue.next(1)

    assert asyncio.run(close()) == (b"last", None)


def test_what_is_cancelled_is_the_job_at_hand_and_none_after_it():
    async def cancel():
        queue = JobQueue()
        await queue.cancel(1)
        return [await queue.is_cancelled(number) for number in (0, 1, 2)]

    assert asyncio.run(cancel()) == [True, True, False]
