"""Loading a handler: by path or by value, of an application, plain or async, with a typed payload."""

import asyncio
import functools
import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from planaria import Context, Message, Reject
from planaria.actors.subscriber.coroutines import Coroutines
from planaria.actors.subscriber.handler import (
    HandlerUnusable,
    failure_of,
    load_handler,
    refuse_result,
    takes_context,
    verdict_of,
)
from planaria.transport.subscription import HandlerSource, InvalidSubscription, source_of


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (lambda _m: None, False),
        (lambda _m, _c: None, True),
        (lambda _m, _retries=3: None, False),
        (lambda *_all: None, False),
        (print, False),
        (functools.partial(lambda _a, _m, _c: None, 1), True),
        (functools.partial(lambda _a, _m: None, 1), False),
    ],
)
def test_who_wants_two_arguments_is_given_a_context(handler: Any, expected: bool) -> None:
    assert takes_context(handler) == expected


def test_a_handler_by_path_is_found_where_the_embedding_program_finds_it(tmp_path: Path) -> None:
    (tmp_path / "shop_for_test.py").write_text(
        "class Billing:\n    @staticmethod\n    def charge(m): return 42\n"
    )
    path_before = list(sys.path)
    try:
        handler = load_handler(HandlerSource(path="shop_for_test:Billing.charge"), [os.fspath(tmp_path)])
        assert handler.call(None) == 42
    finally:
        sys.path[:] = path_before
        sys.modules.pop("shop_for_test", None)


async def a_coroutine(_: object) -> None: ...


def a_generator(_: object) -> object:
    yield


def of_no_payload(_: Path) -> None: ...


class Awaited:
    async def __call__(self, _: object) -> None: ...


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (HandlerSource(path="no_such_module:f"), "cannot be loaded: ModuleNotFoundError"),
        (HandlerSource(path="os:no_such_function"), "cannot be loaded: AttributeError"),
        (HandlerSource(path="os:sep"), "is not callable"),
        (HandlerSource(pickled=b"not a pickle"), "cannot be loaded: UnpicklingError"),
        (HandlerSource(pickled=b""), "cannot be loaded: EOFError"),
        (HandlerSource(pickled=cloudpickle.dumps(a_generator)), "is a generator function"),
        (HandlerSource(pickled=cloudpickle.dumps(of_no_payload)), "no value is decoded"),
        (HandlerSource(path="os:sep", member="charge"), "is not a planaria.App"),
        (source_of(lambda _a, _b, _c: None), "requires 3 arguments"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_refused_in_plain_words(
    source: HandlerSource, complaint: str
) -> None:
    with pytest.raises(HandlerUnusable, match=complaint):
        load_handler(source, [])


async def an_async_generator(_: object) -> object:
    yield


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (an_async_generator, "generator function"),
        (functools.partial(a_generator), "generator function"),
        (a_generator, "generator function"),
        (of_no_payload, "no value is decoded"),
    ],
)
def test_what_a_call_would_not_run_is_refused_before_it_travels(handler: Any, complaint: str) -> None:
    with pytest.raises(InvalidSubscription, match=complaint):
        source_of(handler)


@pytest.mark.parametrize(
    "handler", [a_coroutine, functools.partial(a_coroutine), Awaited(), Awaited().__call__]
)
def test_a_coroutine_function_is_awaited_in_the_event_loop_of_the_process(handler: Any) -> None:
    loaded = load_handler(HandlerSource(pickled=cloudpickle.dumps(handler)), [])
    assert loaded.is_async
    assert Coroutines().awaiting(loaded.call)(None) is None


def test_coroutines_share_one_loop_and_survive_an_exit() -> None:
    async def which_loop(data: int) -> object:
        if data:
            sys.exit(data)
        return asyncio.get_running_loop()

    coroutines = Coroutines()
    call = coroutines.awaiting(which_loop)
    with pytest.raises(SystemExit):
        call(3)
    assert call(0) is call(0)


def test_the_payload_has_the_annotated_type_and_the_context_has_the_message() -> None:
    def handle(order: dict[str, int], context: Context) -> Any:
        return order, context.message.key

    call = load_handler(HandlerSource(pickled=cloudpickle.dumps(handle)), []).call
    assert takes_context(call)
    message = Message("T", 0, 0, b"k", b'{"amount":3}', 0)
    assert call(message, Context(lambda _: None, message)) == ({"amount": 3}, b"k")


def test_a_traceback_begins_with_the_code_of_the_handler() -> None:
    async def fail(order: dict[str, int]) -> None:
        raise RuntimeError("no stock")

    loaded = load_handler(HandlerSource(pickled=cloudpickle.dumps(fail)), [])
    call = Coroutines().awaiting(loaded.call)
    with pytest.raises(RuntimeError) as caught:
        call(Message("T", 0, 0, None, b"{}", 0))
    own_frames = caught.tb.tb_next  # without this test's
    lines = failure_of(caught.value.with_traceback(own_frames)).traceback.splitlines()
    assert "in fail" in lines[1], lines
    with pytest.raises(Reject) as refused:
        call(Message("T", 0, 0, None, b"7", 0))
    assert verdict_of(refused.value) == "rejected"
    assert "does not fit dict: Expected `object`, got `int`" in failure_of(refused.value).reason


@pytest.mark.parametrize("make", [a_coroutine, a_generator, an_async_generator])
def test_what_a_handler_returns_to_be_awaited_is_a_failure_of_its_record(make: Any) -> None:
    with pytest.raises(TypeError, match="its code has not run"):
        refuse_result(make(None))
    refuse_result(42)
