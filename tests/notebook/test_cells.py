"""A cell that is run again takes back what it did before: in a real kernel, spoken to as JupyterLab does."""

from __future__ import annotations

import pytest

from .kernels import Kernel

pytestmark = pytest.mark.slow


def test_a_handler_is_not_doubled_by_running_its_cell_again(lab: Kernel) -> None:
    lab.ok("bus_h = Bus(); heard = []", "h1")
    for word in ("first", "second"):
        lab.ok(
            f"@bus_h.on(RunEnd)\ndef note(event): heard.append({word!r})\n"
            "bus_h.subscribe(lambda event: heard.append('plain'), RunEnd)",
            "h2",
        )
    lab.ok("bus_h.subscribe(lambda event: heard.append('other'), RunEnd)", "h3")
    publish = "bus_h.publish(RunEnd, kind='train', outcome='completed', duration=1.0); bus_h.drain()\n"
    assert lab.ok(publish + "print(sorted(heard)); bus_h.close()", "h4") == "['other', 'plain', 'second']"


def test_a_hook_is_not_doubled_by_running_its_cell_again(lab: Kernel) -> None:
    lab.ok("hooked = []; trainer_k = make_trainer(epochs=1, max_steps=None)", "k1")
    for word in ("first", "second"):
        lab.ok(
            f"@trainer_k.hook(FitEpochEnd)\ndef look(event, trainer): hooked.append({word!r})\n"
            f"hook_k = trainer_k.add_callback('on_fit_epoch_end', lambda trainer: hooked.append('callback'))",
            "k2",
        )
    lab.ok("another = trainer_k.hook(FitEpochEnd)(lambda event, trainer: hooked.append('other'))", "k3")
    lab.ok("await trainer_k.start()", "k4")
    assert lab.ok("print(hooked)", "k5") == "['second', 'callback', 'other']"


def test_what_a_function_called_from_the_cell_registers_counts_too(lab: Kernel) -> None:
    lab.ok("bus_f = Bus(); count_f = []\ndef register(): bus_f.subscribe(count_f.append, RunEnd)", "f1")
    for _ in range(3):
        lab.ok("register()", "f2")
    publish = "bus_f.publish(RunEnd, kind='train', outcome='completed', duration=1.0); bus_f.drain()\n"
    assert lab.ok(publish + "print(len(count_f)); bus_f.close()", "f3") == "1"


def test_a_run_is_stopped_with_its_checkpoint_when_its_cell_is_run_again(lab: Kernel) -> None:
    lab.ok("import tempfile; folder_r = tempfile.mkdtemp(); runs_r = []", "r1")
    start = """
trainer_r = make_trainer(save=True, directory=f"{folder_r}/{len(runs_r)}")
runs_r.append(trainer_r.start())
await runs_r[-1].next(TrainBatchEnd)
"""
    lab.ok(start, "r2")
    lab.ok(start, "r2")
    assert lab.ok("print([run.state for run in runs_r], (await runs_r[0]).reason)", "r3") == (
        "['stopped', 'running'] its cell was run again"
    )
    lab.ok("runs_r[1].stop(); await runs_r[1]", "r3")
    resumed = "result = await make_trainer(max_steps=1, resume=f'{folder_r}/0').start()\n"
    told = lab.ok(resumed + "print(result.run == runs_r[0].id, result.attempt, result.step > 0)", "r4")
    assert told == "True 2 True"


def test_the_same_runner_is_started_again_without_being_busy(lab: Kernel) -> None:
    lab.ok("trainer_s = make_trainer(); runs_s = []", "s1")
    for _ in range(4):
        lab.ok("runs_s.append(trainer_s.start())", "s2")
    answer = lab.run("trainer_s.start()", "s3")
    assert answer.error == "RunnerBusy", answer
    lab.ok("runs_s[-1].stop(); await runs_s[-1]", "s4")
    assert lab.ok("print([run.state for run in runs_s])", "s5") == "['stopped', 'stopped', 'stopped', 'stopped']"


def test_a_run_that_a_cell_awaited_and_ended_is_nobodys_concern(lab: Kernel) -> None:
    code = "run_e = make_trainer(epochs=1, max_steps=None).start(); result_e = await run_e; print(run_e.state)"
    assert lab.ok(code, "e1") == "completed"
    assert lab.ok(code, "e1") == "completed"


def test_streams_that_the_cell_left_open_are_closed(lab: Kernel) -> None:
    lab.ok("bus_o = Bus(); streams = []", "o1")
    for _ in range(2):
        lab.ok("streams.append(bus_o.stream(RunEnd))", "o2")
    assert lab.ok("print([s.stats.state for s in streams]); bus_o.close()", "o3") == "['cancelled', 'active']"


def test_threads_and_the_cells_of_others_are_left_alone(lab: Kernel) -> None:
    lab.ok("bus_t = Bus(); count_t = []", "t1")
    lab.ok("bus_t.subscribe(lambda event: count_t.append('mine'), RunEnd)", "t2")
    thread = """
thread = threading.Thread(target=lambda: bus_t.subscribe(lambda event: count_t.append('thread'), RunEnd))
thread.start(); thread.join()
"""
    lab.ok(thread, "t3")
    lab.ok("pass", "t3")
    lab.ok("pass", "t4")
    publish = "bus_t.publish(RunEnd, kind='train', outcome='completed', duration=1.0); bus_t.drain()\n"
    assert lab.ok(publish + "print(sorted(count_t)); bus_t.close()", "t5") == "['mine', 'thread']"


def test_callbacks_register_for_nobody_who_happens_to_run(lab: Kernel) -> None:
    """A callback of a bus that runs on the kernel's loop registers while another cell waits."""
    lab.ok("bus_c = Bus(); await bus_c.__aenter__(); count_c = []", "c1")
    lab.ok(
        "@bus_c.on(FitEpochEnd)\nasync def more(event): bus_c.subscribe(lambda e: count_c.append('more'), RunEnd)\n"
        "say = lambda: bus_c.publish(RunEnd, kind='train', outcome='completed', duration=1.0)",
        "c2",
    )
    fit = "dict(epoch=0, epochs=1, losses={}, metrics={}, fitness=None, best_fitness=None, best_epoch=None, best=None"
    lab.ok(f"bus_c.publish(FitEpochEnd, **{fit}, last=None, duration=0.1)); await bus_c.adrain()", "c3")
    lab.ok("pass", "c3")
    assert lab.ok("say(); await bus_c.adrain(); print(count_c); await bus_c.aclose()", "c4") == "['more']"


def test_without_the_id_of_a_cell_nothing_is_taken_back(lab: Kernel) -> None:
    lab.ok("bus_n = Bus(); count_n = []")
    for _ in range(2):
        lab.ok("bus_n.subscribe(count_n.append, RunEnd)")
    publish = "bus_n.publish(RunEnd, kind='train', outcome='completed', duration=1.0); bus_n.drain()\n"
    assert lab.ok(publish + "print(len(count_n)); bus_n.close()") == "2"


def test_a_display_outlives_the_cell_that_showed_it_first(lab: Kernel) -> None:
    lab.ok("run_d = make_trainer().start()", "d1")
    lab.ok("display(run_d)", "d2")
    lab.ok("display(run_d)", "d3")
    lab.ok("pass", "d2")
    lab.ok("event = await run_d.next(TrainEpochEnd)", "d4")
    assert lab.ok("print(run_d._widget._watch._stream.stats.state)", "d5") == "active"
    lab.ok("run_d.stop(); await run_d", "d6")
