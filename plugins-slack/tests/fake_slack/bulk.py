"""Workspaces of any size."""

from __future__ import annotations

from fake_slack.workspace import Workspace


def fill(
    workspace: Workspace, *, channels: int, messages: int, threads: int, replies: int = 3
) -> int:
    """Add channels with messages and threads, all within the last day.

    Returns:
      The number of messages, including replies.
    """
    made = [workspace.add_channel(f"channel-{number:03}") for number in range(channels)]
    for number in range(messages):
        workspace.post(
            made[number % channels],
            f"message {number} by <@U1> &amp; <@U2>",
            user=f"U{number % 2 + 1}",
        )
    for number in range(threads):
        channel = made[number % channels]
        root = channel.top[
            (number // channels)
            * max(len(channel.top) * channels // (threads + 1), 1)
            % len(channel.top)
        ]
        if root not in channel.threads:
            for reply in range(replies):
                workspace.post(channel, f"reply {reply}", thread=root, user="U2")
    return sum(len(channel.messages) for channel in made)
