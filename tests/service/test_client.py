"""The typed client: it reads the events of a run elsewhere as if they were here."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import lineside
from lineside import FitEpochEnd, RunEnd, RunStart, TrainBatchEnd
from lineside.bus import Bus, RunIdRefused
from lineside.bus.journal import RunSummary
from lineside.bus.remote import Remote, ServiceLost, ServiceRefusal
from lineside.bus.service import service
from lineside.schemas import Event, UnknownEventName

from .support import PATIENCE, QUICK, TOKEN, Note, batch, begin, end, served, serving, url


@asynccontextmanager
async def cutting(target: str, chance: random.Random) -> AsyncGenerator[tuple[str, list[int]]]:
    """Give the address of something in between that cuts each connection after some bytes."""
    port = int(target.rpartition(":")[2])
    cuts: list[int] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        left = chance.randint(1000, 60_000)

        async def up() -> None:
            while data := await reader.read(4096):
                back.write(data)

        forward = asyncio.create_task(up())
        try:
            while left > 0 and (data := await there.read(min(left, 4096))):
                writer.write(data)
                left -= len(data)
            cuts.append(left)
        finally:
            forward.cancel()
            writer.transport.abort()
            back.transport.abort()

    between = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{between.sockets[0].getsockname()[1]}", cuts
    finally:
        between.close()


async def test_a_connection_that_is_cut_again_and_again_costs_no_event(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        begin(source)
        for n in range(1, 3001):
            source.publish(Note, n=n)
        end(source)
    with served(tmp_path) as address:
        async with (
            cutting(address, random.Random(7)) as (between, cuts),
            lineside.connect(between, token=TOKEN) as remote,
            asyncio.timeout(PATIENCE),
        ):
            stream = remote.stream(Note, run="run")
            numbers = [event.n async for event in stream]
    assert numbers == list(range(1, 3001))
    assert len(cuts) > 10
    assert stream.gaps == []


async def test_a_service_that_restarts_is_found_again(tmp_path: Path) -> None:
    numbers: list[int] = []
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        begin(source)
        source.publish(Note, n=0)
        await bus.aflush()
        port = 0
        remote = stream = None
        for turn in range(3):
            with serving(service(tmp_path, token=TOKEN, limits=QUICK), port) as server:
                port = server.config.port
                if remote is None or stream is None:
                    remote = await lineside.connect(url(server), token=TOKEN).__aenter__()
                    stream = remote.stream(Note, run="run")
                async with asyncio.timeout(PATIENCE):
                    numbers.append((await anext(stream)).n)
                    source.publish(Note, n=turn + 1)
                    await bus.aflush()
        assert remote is not None
        await remote.__aexit__(None, None, None)
    assert numbers == [0, 1, 2]


async def test_a_stream_is_typed_and_ends_with_the_run(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        begin(source)
        batch(source, 1, math.nan)
        source.publish(Note, n=1)
        end(source)
    with served(tmp_path) as address:
        async with lineside.connect(f"{address}/?token={TOKEN}") as remote, asyncio.timeout(PATIENCE):
            losses = [event.loss async for event in remote.stream(TrainBatchEnd, run="run")]
            assert [math.isnan(loss) for loss in losses] == [True]
            kinds = [type(event) async for event in remote.stream(run="run")]
            assert kinds[1:] == [TrainBatchEnd, Note, RunEnd]
            assert [event async for event in remote.stream(FitEpochEnd, run="run")] == []
            assert [type(event) async for event in remote.stream("on_train_batch_end", RunEnd, run="run")] == kinds[
                1::2
            ]


@pytest.mark.parametrize("trouble", [ServiceLost("there", 0.0, "gone"), ServiceRefusal(503, "busy")], ids=repr)
async def test_a_stream_ends_with_the_run_though_the_service_could_not_say_so_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        begin(source)
        end(source)
    troubles, ask = [trouble, trouble], Remote.run

    async def fail_at_first(remote: Remote, run: str) -> RunSummary:
        if troubles:
            raise troubles.pop()
        return await ask(remote, run)

    monkeypatch.setattr(Remote, "run", fail_at_first)
    with served(tmp_path) as address:
        async with lineside.connect(address, token=TOKEN) as remote, asyncio.timeout(PATIENCE):
            assert [type(event) async for event in remote.stream(run="run")] == [RunStart, RunEnd]


async def test_a_position_is_good_for_another_time(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        for n in range(10):
            source.publish(Note, n=n)
        end(source)
    with served(tmp_path) as address:
        async with lineside.connect(address, token=TOKEN) as remote, asyncio.timeout(PATIENCE):
            stream = remote.stream(Note, run="run")
            assert [(await anext(stream)).n for _ in range(4)] == [0, 1, 2, 3]
            assert [event.n async for event in remote.stream(Note, run="run", after=stream.position)] == list(
                range(4, 10)
            )


async def test_runs_are_summaries(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus.source("one"))
        await bus.aflush()
        with served(bus) as address:
            async with lineside.connect(address, token=TOKEN) as remote:
                (summary,) = await remote.runs()
                assert summary == await remote.run("one")
                assert (summary.run, summary.model, summary.state) == ("one", "Net", "running")
                with pytest.raises(ServiceRefusal, match="did you mean one") as refused:
                    await remote.run("ons")
                assert refused.value.status == 404
                with pytest.raises(ServiceRefusal, match="out of reach"):
                    await remote.stop("one")


async def test_mistakes_are_told(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus.source("one"))
    with served(tmp_path) as address:
        async with lineside.connect(address, token="wrong") as remote:
            with pytest.raises(ServiceRefusal, match="needs the token"):
                await remote.runs()
            with pytest.raises(ServiceRefusal, match="needs the token"):
                await anext(remote.stream(Event, run="one"))
            with pytest.raises(RunIdRefused):
                remote.stream(Event, run="../one")
            with pytest.raises(UnknownEventName):
                remote.stream("TrainBatchEnt", run="one")
    with pytest.raises(ServiceLost, match="no service answers at http://127.0.0.1:1"):
        async with lineside.connect("http://127.0.0.1:1"):
            pass


async def test_patience_ends(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus.source("one"))
    with served(tmp_path) as address:
        remote = await lineside.connect(address, token=TOKEN, patience=0.05).__aenter__()
        stream = remote.stream(run="one")
        await anext(stream)
    with pytest.raises(ServiceLost, match="is `lineside serve` running"):
        async with asyncio.timeout(PATIENCE):
            await anext(stream)
    await remote.__aexit__(None, None, None)
