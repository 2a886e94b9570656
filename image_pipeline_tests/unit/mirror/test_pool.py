"""How connections are made, used again and replaced."""

import asyncio

import pytest

from image_pipeline.mirror.pool import LOGINS, Pool
from image_pipeline.mirror.remote import ServerAwayError, ServerRefusedError


class Line:
    """A connection that only knows whether it is broken."""

    def __init__(self):
        self.broken = False
        self.closed = False

    async def close(self):
        self.closed = True


class Host:
    """Hands out connections, up to ``most`` at a time that are not broken."""

    def __init__(self, most=100, error=ServerAwayError):
        self.most = most
        self.error = error
        self.made = []
        self.logging_in = self.busiest = 0

    async def connect(self):
        self.logging_in += 1
        self.busiest = max(self.busiest, self.logging_in)
        await asyncio.sleep(0)
        self.logging_in -= 1
        if sum(not line.broken for line in self.made) >= self.most:
            raise self.error("too many")
        self.made.append(Line())
        return self.made[-1]


async def work(pool, hold=3):
    async with pool.connection() as line:
        for _ in range(hold):
            await asyncio.sleep(0)
            assert not line.closed
    return line


async def together(*jobs):
    return await asyncio.wait_for(asyncio.gather(*jobs), 10)


def test_one_after_the_other_uses_one():
    host = Host()

    async def run():
        pool = Pool(host.connect, 5)
        lines = [await work(pool) for _ in range(20)]
        await pool.close()
        return lines

    lines = asyncio.run(run())
    assert len(set(map(id, lines))) == len(host.made) == 1
    assert host.made[0].closed


def test_never_more_than_wanted():
    host = Host()

    async def run():
        pool = Pool(host.connect, 3)
        await together(*(work(pool) for _ in range(30)))
        assert pool.opened == 3

    asyncio.run(run())
    assert len(host.made) == 3


def test_few_logins_at_a_time():
    host = Host()

    async def run():
        await together(*(work(Pool(host.connect, 50)) for _ in range(1)))
        pool = Pool(host.connect, 50)
        await together(*(work(pool, 200) for _ in range(50)))

    asyncio.run(run())
    assert host.busiest == LOGINS


def test_a_broken_one_is_closed_and_replaced():
    host = Host()

    async def run():
        pool = Pool(host.connect, 1)
        async with pool.connection() as line:
            line.broken = True
        assert line.closed
        again = await work(pool)
        # This one breaks while nobody looks.
        again.broken = True
        assert await work(pool) not in (line, again)

    asyncio.run(run())
    assert len(host.made) == 3


def test_a_server_that_takes_fewer_gets_fewer():
    host = Host(most=2)

    async def run():
        pool = Pool(host.connect, 8)
        await together(*(work(pool) for _ in range(40)))
        assert pool.opened == 2

    asyncio.run(run())


def test_more_are_tried_again_once_one_broke():
    host = Host(most=1)

    async def run():
        pool = Pool(host.connect, 2)
        await together(work(pool), work(pool))
        host.most = 5
        host.made[0].broken = True
        await together(work(pool), work(pool))
        assert pool.opened == 3

    asyncio.run(run())


@pytest.mark.parametrize("error", [ServerAwayError, ServerRefusedError])
def test_no_connection_at_all_is_an_error_for_everybody(error):
    host = Host(most=0, error=error)

    async def run():
        pool = Pool(host.connect, 4)
        found = await asyncio.wait_for(
            asyncio.gather(*(work(pool) for _ in range(9)), return_exceptions=True), 10
        )
        assert [type(one) for one in found] == [error] * 9
        # It counts nothing twice: when the server is back, all of them are to be had.
        host.most = 100
        await together(*(work(pool) for _ in range(9)))
        assert pool.opened == 4

    asyncio.run(run())


def test_an_error_of_the_work_gives_the_connection_back():
    host = Host()

    async def run():
        pool = Pool(host.connect, 1)
        with pytest.raises(KeyError):
            async with pool.connection():
                raise KeyError
        await work(pool)

    asyncio.run(run())
    assert len(host.made) == 1
