"""Messages as Dramatiq reads them."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st

from core.ledger.outcomes import Dispatch
from core.transport.messages import RUN_TASK, dispatch_message, encode


def test_dramatiq_reads_a_dispatch_back_whole(dispatch: Callable[..., Dispatch]) -> None:
    sent = dispatch(task_id=5, dispatch_no=3, payload={"a": [1, "é\0", None]}, suspect=True)
    message: Message = Message.decode(dispatch_message(sent).encode())
    assert Dispatch(*message.args) == sent
    assert (message.queue_name, message.actor_name) == ("shop", RUN_TASK)
    assert message.message_id == message.options["redis_message_id"] == sent.id == "5-3"
    assert abs(message.message_datetime.timestamp() - message.message_timestamp / 1000) < 1


def test_it_encodes_as_dramatiq_itself_would(dispatch: Callable[..., Dispatch]) -> None:
    text = dispatch_message(dispatch()).encode()
    assert Message.decode(Message.decode(text).encode()) == Message.decode(text)


@given(st.lists(st.none() | st.booleans() | st.integers() | st.text()))
def test_any_arguments_survive(arguments: list[object]) -> None:
    assert list(Message.decode(encode("q", "a", "1", arguments).encode()).args) == arguments
