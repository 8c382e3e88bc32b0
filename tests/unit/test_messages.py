"""Messages as Dramatiq reads them, and as other versions of the engine write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st

from core.ledger.outcomes import Block, Dispatch, Outcome, Stop
from core.ledger.serialization import from_fields
from core.transport.messages import (
    KEYS,
    RUN_TASK,
    TaskMessage,
    dispatch_message,
    encode,
    read_dispatch,
)

OPTIONAL = {
    "user": "u-7",
    "token": 2**63 - 1,
    "attempts": 2,
    "crashes": 1,
    "snoozes": 3,
    "suspect": True,
    "deferrals": 2,
    "failing_seconds": 3.5,
    "probe": True,
}

DEFAULTS = {field.name: field.default for field in fields(Dispatch)}


def test_dramatiq_decodes_every_field_of_a_dispatch(dispatch: Callable[..., Dispatch]) -> None:
    sent = dispatch(task_id=5, dispatch_no=3, payload={"a": [1, "é\0", None]}, suspect=True)
    message: Message = Message.decode(dispatch_message(sent).encode())
    assert TaskMessage(message).dispatch == sent
    assert (message.queue_name, message.actor_name) == ("shop", RUN_TASK)
    assert message.message_id == message.options["redis_message_id"] == sent.id == "5-3"
    assert abs(message.message_datetime.timestamp() - message.message_timestamp / 1000) < 1


def test_a_message_is_encoded_as_dramatiq_encodes_it(dispatch: Callable[..., Dispatch]) -> None:
    text = dispatch_message(dispatch()).encode()
    assert Message.decode(Message.decode(text).encode()) == Message.decode(text)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_any_fields_survive_encoding_and_decoding(fields: dict[str, object]) -> None:
    message: Message = Message.decode(encode('q"', "a\n", "1", fields).encode())
    assert (message.queue_name, message.actor_name, message.kwargs) == ('q"', "a\n", fields)


def test_every_field_has_a_unique_key() -> None:
    assert list(KEYS) == [field.name for field in fields(Dispatch)]
    assert len(set(KEYS.values())) == len(KEYS)


@pytest.mark.parametrize("optional", [{}, {"token": -5}, OPTIONAL, {"snoozes": 1}])
@pytest.mark.parametrize("texts", ["step", 'é"\\\n', "\ud800"])
def test_a_formatted_message_equals_an_encoded_one(
    dispatch: Callable[..., Dispatch], optional: dict[str, Any], texts: str
) -> None:
    one = dispatch(type=texts, domain=texts, payload={texts: texts}, **optional)
    message = json.loads(dispatch_message(one))
    named = {KEYS[field.name]: getattr(one, field.name) for field in fields(Dispatch)}
    if not optional.keys() - {"token"}:
        named = {key: value for key, value in named.items() if key not in "fczuhwb"}
    assert message["kwargs"] == named
    assert message["queue_name"] == texts


def sent(dispatch: Dispatch) -> dict[str, Any]:
    """Return the fields of a dispatch's message."""
    named: dict[str, Any] = json.loads(dispatch_message(dispatch))["kwargs"]
    return named


def test_the_actor_receives_the_dispatch_that_the_consumer_decoded(
    dispatch: Callable[..., Dispatch],
) -> None:
    message = TaskMessage(Message.decode(dispatch_message(one := dispatch()).encode()))
    assert message.kwargs == {"dispatch": one}
    assert message.kwargs["dispatch"] is message.dispatch


def test_unknown_fields_of_a_newer_version_are_ignored(dispatch: Callable[..., Dispatch]) -> None:
    for one in (dispatch(), dispatch(**OPTIONAL)):
        assert read_dispatch(sent(one) | {"later": [1]}) == one


def test_a_message_of_a_version_without_tokens_is_read(dispatch: Callable[..., Dispatch]) -> None:
    for one in (dispatch(token=1), dispatch(**OPTIONAL)):
        named = sent(one)
        del named[KEYS["token"]]
        assert read_dispatch(named) == replace(one, token=None)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_optional_field_has_its_default(
    dispatch: Callable[..., Dispatch], name: str
) -> None:
    named = sent(dispatch(**OPTIONAL))
    del named[KEYS[name]]
    assert read_dispatch(named) == dispatch(**{**OPTIONAL, name: DEFAULTS[name]})


@pytest.mark.parametrize("name", [name for name in KEYS if name not in OPTIONAL])
def test_the_error_names_a_missing_required_field(
    dispatch: Callable[..., Dispatch], name: str
) -> None:
    named = sent(dispatch(**OPTIONAL))
    del named[KEYS[name]]
    with pytest.raises(TypeError, match=f"a dispatch lacks {name}$"):
        read_dispatch(named)


def test_a_result_of_another_version_is_read(dispatch: Callable[..., Dispatch]) -> None:
    outcome = Outcome(
        dispatch(**OPTIONAL), block=Block("k", 1.0, "r"), stop=Stop("credentials", "d", 1)
    )
    data = json.loads(json.dumps(outcome.to_json()))
    for part in (data, data["dispatch"], data["block"], data["stop"]):
        part["of_the_next_version"] = True
    assert Outcome.from_json(data) == outcome
    older = {"dispatch": {name: data["dispatch"][name] for name in KEYS if name not in OPTIONAL}}
    assert Outcome.from_json(older) == Outcome(dispatch())


def test_a_result_without_a_required_field_is_refused(dispatch: Callable[..., Dispatch]) -> None:
    for part, name in (("dispatch", "epoch"), ("block", "reason"), ("stop", "detail")):
        data = Outcome(
            dispatch(), block=Block("k", 1.0, "r"), stop=Stop("credentials", "d", 1)
        ).to_json()
        del data[part][name]
        with pytest.raises(TypeError, match=name):
            Outcome.from_json(data)
    with pytest.raises(TypeError, match="task_id"):
        Outcome.from_json({})


@pytest.mark.parametrize("data", [None, 7, "text", [1]])
def test_data_without_named_fields_is_refused(data: Any) -> None:
    with pytest.raises(TypeError):
        from_fields(Block, data)
    with pytest.raises(TypeError):
        read_dispatch(data)
