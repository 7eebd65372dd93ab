from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from lineside.bus.subscribers import JsonLines
from lineside.schemas import Event, TrainBatchEnd, decode

Story = Callable[[str], list[Event]]


def read(path: Path) -> list[Event]:
    return [decode(line) for line in path.read_bytes().splitlines()]


def test_every_event_is_a_line_that_decodes_to_it(tmp_path: Path, story: Story) -> None:
    path = tmp_path / "runs" / "log.jsonl"
    log = JsonLines(path)
    for event in story("train"):
        log(event)
    log.close()
    assert read(path) == story("train")


def test_what_is_urgent_is_in_the_file_at_once_and_brings_what_came_before(tmp_path: Path, story: Story) -> None:
    events = story("train")
    end_of_epoch = next(index for index, event in enumerate(events) if event.type == "TrainEpochEnd")
    log = JsonLines(tmp_path / "log.jsonl")
    for event in events[: end_of_epoch + 1]:
        log(event)
    assert read(log.path) == events[: end_of_epoch + 1]
    log.close()


def test_batches_are_written_together(tmp_path: Path, story: Story) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    for event in story("train"):
        if isinstance(event, TrainBatchEnd):
            log(event)
    assert read(log.path) == []
    log.close()
    assert len(read(log.path)) == 4


def test_a_second_log_writes_behind_the_first(tmp_path: Path, story: Story) -> None:
    for kind in ("train", "val"):
        log = JsonLines(tmp_path / "log.jsonl")
        for event in story(kind):
            log(event)
        log.close()
    assert read(tmp_path / "log.jsonl") == story("train") + story("val")


def test_nothing_is_made_before_the_first_event(tmp_path: Path) -> None:
    JsonLines(tmp_path / "log.jsonl").close()
    assert not (tmp_path / "log.jsonl").exists()


def test_closing_twice_is_fine_and_an_event_after_that_opens_it_again(tmp_path: Path, story: Story) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    first, second = story("val")[:2]
    log(first)
    log.close()
    log.close()
    log(second)
    log.close()
    assert read(log.path) == [first, second]


def test_it_travels_to_another_process_without_its_open_file(tmp_path: Path, story: Story) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log(story("val")[0])
    copy = pickle.loads(pickle.dumps(log))
    copy(story("val")[1])
    copy.close()
    log.close()
    assert copy.path == log.path
    assert len(read(log.path)) == 2


def test_a_path_that_cannot_be_written_is_the_callers_error(tmp_path: Path, story: Story) -> None:
    (tmp_path / "file").write_text("")
    log = JsonLines(tmp_path / "file" / "log.jsonl")
    with pytest.raises(OSError, match=r"file"):
        log(story("val")[0])
