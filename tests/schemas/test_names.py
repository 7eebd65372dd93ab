"""Events are found by class, type name and callback name, those of the user like ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import Field, PydanticUserError

from lineside.schemas import (
    BatchEnd,
    BatchEvent,
    DuplicateEvent,
    Event,
    EventRefused,
    LinesideError,
    NotAnEvent,
    OptimizerEvent,
    PredictBatchEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEvent,
    UnknownEventName,
    ValBatchEnd,
    ValEvent,
    decode,
    encode,
    events,
    find_event,
    find_events,
)

from .strategies import shipped

CALLBACKS_OF_THE_ORIGINAL = [
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_fit_epoch_end",
    "on_model_save",
    "on_train_end",
    "on_params_update",
    "teardown",
    "on_val_start",
    "on_val_batch_start",
    "on_val_batch_end",
    "on_val_end",
    "on_predict_start",
    "on_predict_batch_start",
    "on_predict_postprocess_end",
    "on_predict_batch_end",
    "on_predict_end",
    "on_export_start",
    "on_export_end",
]


def test_all_25_callbacks_of_the_original_have_an_event() -> None:
    found = {find_event(name) for name in CALLBACKS_OF_THE_ORIGINAL}
    assert len(CALLBACKS_OF_THE_ORIGINAL) == len(found) == 25
    assert [find_event(name).callback for name in CALLBACKS_OF_THE_ORIGINAL] == CALLBACKS_OF_THE_ORIGINAL
    assert not any(cls.family for cls in found)


@pytest.mark.parametrize("cls", shipped(), ids=lambda cls: cls.__name__)
def test_a_class_is_found_by_itself_its_type_and_its_callback(cls: type[Event]) -> None:
    assert find_event(cls) is find_event(cls.__name__) is find_event(cls.callback) is cls


def test_families_and_the_base_are_found_by_name() -> None:
    assert find_event("Event") is Event
    assert find_event("BatchEnd") is BatchEnd
    assert find_events(["on_train_end", ValEvent, "TrainBatchEnd"]) == (find_event("TrainEnd"), ValEvent, TrainBatchEnd)


def test_no_names_mean_every_event() -> None:
    assert find_events([]) == (Event,)


def test_a_family_lists_its_events_and_no_families() -> None:
    assert events(ValEvent)[:1] == (find_event("ValStart"),)
    assert set(shipped(BatchEnd)) == {TrainBatchEnd, ValBatchEnd, PredictBatchEnd}
    assert len(shipped(OptimizerEvent)) == 4
    assert set(events(OptimizerEvent)) <= set(events(TrainEvent)) & set(events(BatchEvent))
    assert RunStart in events()
    assert not any(cls.family for cls in events())


def test_only_the_events_of_a_batch_and_of_a_request_can_wait() -> None:
    assert {cls.__name__ for cls in shipped() if not cls.urgent} == {
        *("TrainBatchStart", "TrainBatchEnd", "ValBatchStart", "ValBatchEnd"),
        *("OptimizerStep", "OptimizerSkip", "ParamsUpdate", "BeforeZeroGrad"),
        *("PredictBatchStart", "PredictPostprocessEnd"),
        *("RequestStart", "RequestEnd"),
    }


def test_a_family_cannot_be_an_event() -> None:
    for family in (Event, TrainEvent, BatchEnd):
        with pytest.raises(ValueError, match=f"{family.__name__} is a family of events to subscribe to"):
            family.model_validate({"epoch": 0, "batch": 0, "batches": 1, "batch_size": 1} if family is BatchEnd else {})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("TrainBatchEnded", "TrainBatchEnd"), ("on_train_bach_end", "on_train_batch_end"), ("tear_down", "teardown")],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownEventName, match=f"'{wrong}'.*did you mean.*'{meant}'") as caught:
        find_event(wrong)
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, LinesideError)


def test_a_name_like_no_other_is_answered_with_where_to_look() -> None:
    with pytest.raises(UnknownEventName, match=r"lineside\.schemas\.events\(\)"):
        find_event("xyzzy")


@pytest.mark.parametrize("thing", [3, None, int, ["RunEnd"], RunEnd.__name__.encode()])
def test_what_is_no_event_is_refused(thing: object) -> None:
    with pytest.raises(NotAnEvent, match="expected an event class, a type name or a callback name") as caught:
        find_event(thing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert isinstance(caught.value, TypeError)


def test_a_subclass_is_an_event_at_once() -> None:
    class PlatformChanged(Event):
        platform: int

    assert find_event("PlatformChanged") is find_event("on_platform_changed") is PlatformChanged
    assert PlatformChanged in events()
    event = PlatformChanged(platform=9)
    assert decode(encode(event)) == event


def test_a_subclass_of_a_family_belongs_to_it() -> None:
    class TrainBatchSkipped(TrainEvent, BatchEvent):
        """A batch that was left out."""

    assert TrainBatchSkipped in events(TrainEvent)
    assert TrainBatchSkipped in events(BatchEvent)
    assert not TrainBatchSkipped.urgent


def test_the_keywords_of_a_subclass_name_it_and_say_how_it_travels() -> None:
    class Whistle(Event, name="acme.Whistle", callback="whistle", urgent=False):
        pitch: float

    class Signals(Event, family=True, urgent=False):
        """Signals of all kinds."""

    class Distant(Signals):
        """A distant signal."""

    class Home(Signals, urgent=True):
        """A home signal."""

    assert find_event("acme.Whistle") is find_event("whistle") is Whistle
    assert not Whistle.urgent
    assert b'"type":"acme.Whistle"' in encode(Whistle(pitch=440))
    assert isinstance(decode(encode(Whistle(pitch=440))), Whistle)
    assert events(Signals) == (Distant, Home)
    assert (Distant.urgent, Home.urgent) == (False, True)


@pytest.mark.parametrize(
    ("name", "callback"),
    [
        ("GPUStats", "on_gpu_stats"),
        ("EmaUpdate", "on_ema_update"),
        ("UpdateEMA", "on_update_ema"),
        ("Fp16Overflow", "on_fp16_overflow"),
    ],
)
def test_a_callback_name_is_the_name_in_snake_case(name: str, callback: str) -> None:
    type(name, (Event,), {"__module__": __name__})
    assert find_event(name).callback == callback


def test_an_event_accepts_no_other_type_than_its_own() -> None:
    with pytest.raises(ValueError, match="type"):
        RunEnd.model_validate({"type": "RunStart", "kind": "val", "outcome": "completed", "duration": 1})


def test_two_classes_cannot_have_one_name() -> None:
    with pytest.raises(DuplicateEvent, match=r"'TrainBatchEnd'.*lineside\.schemas\.train\.TrainBatchEnd") as caught:
        type("TrainBatchEnd", (Event,), {"__module__": "elsewhere"})
    assert isinstance(caught.value, TypeError)
    assert find_event("TrainBatchEnd") is TrainBatchEnd


def test_two_classes_cannot_have_one_callback() -> None:
    with pytest.raises(DuplicateEvent, match=r"'teardown'.*lineside\.schemas\.train\.Teardown"):

        class Demolition(Event, callback="teardown"):  # pyright: ignore[reportUnusedClass]
            pass

    assert find_event("teardown").__name__ == "Teardown"
    with pytest.raises(UnknownEventName):
        find_event("Demolition")


def test_the_same_definition_run_again_replaces_the_first() -> None:
    def cell(callback: str) -> type[Event]:
        class Shunting(Event, callback=callback):
            cars: int = 0

        return Shunting

    first, second = cell("on_shunting"), cell("shunting")
    assert first is not second
    assert find_event("Shunting") is find_event("shunting") is second
    assert type(decode(b'{"type":"Shunting"}')) is second
    with pytest.raises(UnknownEventName):
        find_event("on_shunting")


@pytest.mark.parametrize("name", ["type", "family", "callback", "urgent"])
@pytest.mark.parametrize("annotated", [True, False])
def test_a_field_with_the_name_of_a_class_attribute_is_refused(name: str, annotated: bool) -> None:
    body = {"__annotations__": {name: str}} if annotated else {name: "oak"}
    with pytest.raises(EventRefused, match=rf"Tree: '{name}' cannot be a field.*call the field otherwise"):
        type("Tree", (Event,), {"__module__": __name__, **body})
    with pytest.raises(UnknownEventName):
        find_event("Tree")


def test_an_event_called_like_the_callback_of_another_is_refused() -> None:
    with pytest.raises(DuplicateEvent, match=r"'on_train_end'.*lineside\.schemas\.train\.TrainEnd"):
        type("on_train_end", (Event,), {"__module__": __name__})
    with pytest.raises(DuplicateEvent, match=r"'TrainEnd'.*lineside\.schemas\.train\.TrainEnd"):

        class Terminus(Event, callback="TrainEnd"):  # pyright: ignore[reportUnusedClass]
            pass

    assert find_event("on_train_end").__name__ == find_event("TrainEnd").__name__ == "TrainEnd"


def test_the_name_of_the_base_is_taken() -> None:
    with pytest.raises(DuplicateEvent, match=r"'Event'.*lineside\.schemas\.event\.Event"):

        class Occurrence(Event, name="Event"):  # pyright: ignore[reportUnusedClass]
            pass

    assert find_event("Event") is Event


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(EventRefused, match="its name is empty; leave name= away"):

        class Nameless(Event, name=""):  # pyright: ignore[reportUnusedClass]
            pass


def test_a_class_that_could_not_be_made_leaves_no_name_behind() -> None:
    with pytest.raises(PydanticUserError, match="annotation"):
        type("Arrival", (Event,), {"__module__": __name__, "platform": Field()})
    with pytest.raises(UnknownEventName):
        find_event("Arrival")


def test_events_can_be_listed_while_other_threads_define_more() -> None:
    def define(start: int) -> None:
        for number in range(start, start + 50):
            type(f"Passing{number}", (Event,), {"__module__": __name__})

    with ThreadPoolExecutor(2) as pool:
        defining = [pool.submit(define, start) for start in (0, 50)]
        while not all(job.done() for job in defining):
            assert RunStart in events()
        assert all(job.exception() is None for job in defining)
    assert len([cls for cls in events() if cls.__name__.startswith("Passing")]) == 100
