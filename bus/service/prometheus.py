"""The state of the runs in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from ..journal.runs import RunSummary, State

RUNS = 50
"""The newest runs, which have figures of their own: a series that is kept for ever costs who collects it."""


def exposition(runs: Sequence[RunSummary], streams: int) -> str:
    """Return what a collector reads. `runs` are in order, the newest first."""
    return "\n".join([*_lines(runs, streams), ""])


def _lines(runs: Sequence[RunSummary], streams: int) -> Iterator[str]:
    yield from _family("lineside_streams", "Open streams of this service.", [({}, streams)])
    states = [({"state": state}, sum(run.state == state for run in runs)) for state in get_args(State)]
    yield from _family("lineside_runs", "Runs in the journal by state.", states)
    newest = runs[:RUNS]
    events = [({"run": run.run}, run.events) for run in newest]
    yield from _family("lineside_run_events_total", "Events of a run in the journal.", events, "counter")
    going = [({"run": run.run}, run.state == "running") for run in newest]
    yield from _family("lineside_run_running", "Whether a run goes on.", going)
    updated = [({"run": run.run}, run.updated.timestamp()) for run in newest]
    yield from _family("lineside_run_updated_timestamp_seconds", "Time of the newest event of a run.", updated)
    epochs = [({"run": run.run}, run.epoch) for run in newest if run.epoch is not None]
    yield from _family("lineside_run_epoch", "Epoch that a run began last, from 0.", epochs)
    fitness = [({"run": run.run}, run.fitness) for run in newest if run.fitness is not None]
    yield from _family("lineside_run_fitness", "Fitness of the last validation, larger is better.", fitness)
    metrics = [({"run": run.run, "metric": name}, value) for run in newest for name, value in run.metrics.items()]
    yield from _family("lineside_run_metric", "Metrics of the last validation.", metrics)


def _family(
    name: str, meaning: str, samples: Sequence[tuple[Mapping[str, str], float]], kind: str = "gauge"
) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        written = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{written}}} {float(value)!r}" if written else f"{name} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
