"""The files of messages: their rows, and the tasks that download them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core import BlobWriter, Context, Task, TaskOutput, TaskResult, task
from integration_polling_slack import files
from integration_polling_slack.directory import Directory
from integration_polling_slack.files import File
from integration_polling_slack.messages import Message, Place
from integration_polling_slack.names import is_id

MB = 1_000_000


@dataclass(slots=True)
class Kept:
    """The rows and tasks of a page of messages, and the ids of items without a row."""

    output: list[TaskOutput] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


class Attachments(Directory):
    """The part of the integration that keeps the files of new and changed messages."""

    def _add_files(
        self, ctx: Context, kept: Kept, place: Place, changed: Sequence[Message]
    ) -> None:
        """Add rows or downloads for the files of new and changed messages."""
        if self.config.files == "none":
            return
        found = [
            (File.of(place.id(one["ts"]), data), data) for one in changed for data in files_of(one)
        ]
        known = ctx.fingerprints([file.key for file, _ in found])
        for file, data in found:
            if file.mode == "tombstone":
                kept.output += [TaskOutput.gone(file.key)] if file.key in known else []
            elif data.get("file_access") == "check_file_info":
                kept.seen.append(file.key)
                kept.tasks.append(self.get_file_info.task(message=file.message, file=file.id))
            else:
                self._add_file(kept, file, known.get(file.key))

    def _add_file(self, kept: Kept, file: File, known: str | None) -> None:
        without = files.obstacle(file, self.settings, self._most_bytes)
        if file.mode == files.HIDDEN and known is not None:
            kept.seen.append(file.key)  # keep the row from before the file was hidden
        elif self.config.files == "metadata" or without:
            # A row keeps the content that it already has.
            kept_already = known == file.version("content")
            (
                kept.seen.append(file.key)
                if kept_already
                else kept.output.append(file.row(without=without))
            )
        elif known == file.version("content"):
            kept.seen.append(file.key)
        else:
            kept.seen.append(file.key)
            kept.tasks.append(self.download_file.task(file=file))

    @task(cost={"files.info": 1})
    def get_file_info(self, ctx: Context, message: str, file: str) -> TaskResult:
        """Fetch the description of another organization's file: the message has only its id.

        Args:
          ctx: The task's context.
          message: The id of the message's row.
          file: The file's id.
        """
        data = self._call(ctx, "files.info", file=file).data.get("file")
        kept = Kept()
        if isinstance(data, dict) and data.get("id") == file:
            found = File.of(message, data)
            self._add_file(kept, found, ctx.fingerprints([found.key]).get(found.key))
        return TaskResult(kept.output, kept.tasks, seen=kept.seen)

    @task(cost={files.LIMIT: 1}, time_limit=3600)
    def download_file(self, ctx: Context, file: File) -> TaskResult:
        """Download a file as a stream.

        Args:
          ctx: The task's context.
          file: The file's description.
        """
        try:
            with ctx.blob(f"{file.key}@{file.version('content')}") as blob:
                self._fetch(ctx, file, blob)
        except files.TooLarge as error:
            return TaskResult([file.row(without=str(error))])
        except files.Gone:
            return TaskResult([TaskOutput.gone(file.key)])
        return TaskResult([file.row(blob.blob)])

    def _fetch(self, ctx: Context, file: File, blob: BlobWriter) -> None:
        """Download the file. If Slack refuses, test the token, and retry if it was renewed."""
        token = self.credentials.token
        try:
            files.fetch(self.settings, token, file, blob, self._most_bytes)
        except files.Refused:
            self._call(ctx, "auth.test")
            if self.credentials.token == token:
                raise
            ctx.charge(files.LIMIT)
            files.fetch(self.settings, self.credentials.token, file, blob, self._most_bytes)

    @property
    def _most_bytes(self) -> int:
        return self.config.max_file_mb * MB


def files_of(message: Message) -> list[Mapping[str, Any]]:
    """Return the file objects of a message that have a valid id."""
    found = message.get("files")
    return (
        [one for one in found if isinstance(one, dict) and is_id(one.get("id"))]
        if isinstance(found, list)
        else []
    )
