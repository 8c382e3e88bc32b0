"""The files that a message shows: its own, those of forwarded messages, and images in blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from integration_polling_slack.blocks import DEEPEST
from integration_polling_slack.names import is_id
from integration_polling_slack.text import attached_files

_IN_ADDRESS = re.compile(r"/[A-Z0-9]+-(F[A-Z0-9]+)/")
"""The id of a file in its address: `/files-pri/T1-F1/name`."""

_CHECK = "check_file_info"
"""Slack's `file_access` of a file whose description must be fetched."""


def files_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the file objects with a valid id, each once; a complete one precedes a bare id."""
    found = dict[str, Mapping[str, Any]]()
    for one in _files(message, DEEPEST):
        id = str(one.get("id"))
        if id not in found or found[id].get("file_access") == _CHECK:
            found[id] = one
    return list(found.values())


def _files(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield the files of a message, of its attachments and of its blocks."""
    if not isinstance(value, dict) or depth <= 0:
        return
    yield from (one for one in attached_files(value) if is_id(one.get("id")))
    yield from _images(value.get("blocks"), depth - 1)
    attachments = value.get("attachments")
    for one in attachments if isinstance(attachments, list) else []:
        yield from _files(one, depth - 1)
        outer = one.get("message_blocks") if isinstance(one, dict) else None
        for inner in outer if isinstance(outer, list) else []:
            yield from _files(inner.get("message") if isinstance(inner, dict) else None, depth - 1)


def _images(blocks: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield the uploaded images that blocks show: https://docs.slack.dev/reference/block-kit."""
    if depth <= 0:
        return
    if isinstance(blocks, list):
        for one in blocks:
            yield from _images(one, depth - 1)
    elif isinstance(blocks, dict):
        file = blocks.get("slack_file")
        if isinstance(file, dict):
            yield from _image(file)
        for value in blocks.values():
            if isinstance(value, list | dict) and value is not file:
                yield from _images(value, depth - 1)


def _image(file: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    id, url = file.get("id"), file.get("url")
    if not is_id(id) and isinstance(url, str) and (found := _IN_ADDRESS.search(url)):
        id = found[1]
    if is_id(id):
        yield {"id": id, "file_access": _CHECK}
