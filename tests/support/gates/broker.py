"""A gate right before the plugin.

Load this module beside the actors: `dramatiq core.actors support.gates.broker`.
"""

from __future__ import annotations

import dramatiq
from dramatiq.broker import MessageProxy

from core.integration.base import START
from core.middleware.base import dispatch_of
from support.gates import Gate, go_through


class BeforePlugin(dramatiq.Middleware):
    """The gate as a middleware, added last, so that the engine's middleware runs before it."""

    def before_process_message(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        dispatch = dispatch_of(message)
        if dispatch is not None and dispatch.type != START:
            go_through(Gate.BEFORE_PLUGIN)


dramatiq.get_broker().add_middleware(BeforePlugin())
