"""A stateful fake of the Slack Web API, over real HTTP.

It follows the reference at https://docs.slack.dev.

    workspace   people, channels, messages, files, and their changes
    methods     the Web API's methods
    server      HTTP: tokens, rate limits, faults, a log of all calls
    bulk        large workspaces

Slack's events are in two further modules:

    events      their payloads and signatures
    socket_mode connections over real WebSockets
"""

from fake_slack.server import Call, Fake, serve
from fake_slack.workspace import Workspace

__all__ = ["Call", "Fake", "Workspace", "serve"]
