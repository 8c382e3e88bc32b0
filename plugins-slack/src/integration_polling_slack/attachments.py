"""The files of messages: their rows, and the tasks that download them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from core import (
    BlobWriter,
    Context,
    PermanentError,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    task,
)
from integration_polling_slack import files, scopes
from integration_polling_slack.attached import files_of
from integration_polling_slack.errors import Unreadable
from integration_polling_slack.files import File
from integration_polling_slack.members import Members
from integration_polling_slack.messages import Message, Place

MB = 1_000_000

REVOKED = "ekm_access_denied"
"""The subtype of a message that an organization hides by its encryption key.

It has no files, but it may come back with them.
"""


@dataclass(slots=True)
class Kept:
    """The rows, tasks and state of a page of messages, and the ids of items without a row.

    `threads` has the versions of the threads to read, by timestamp. `unnamed` has the ids of people
    that could not be looked up now.
    """

    output: list[TaskOutput] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    state: dict[str, BaseModel | None] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)


class Attachments(Members):
    """The part of the integration that keeps the files of new and changed messages."""

    def _add_files(
        self,
        ctx: Context,
        kept: Kept,
        place: Place,
        changed: Sequence[Message],
        edited: Collection[str] = (),
    ) -> None:
        """Add rows or downloads for the files of new and changed messages.

        Args:
          ctx: The task's context.
          kept: The result.
          place: The channel.
          changed: The messages.
          edited: The timestamps of those that had another version before. The files that these no
            longer have are deleted. Default: none.
        """
        if self.config.files == "none":
            return
        found = [
            (File.of(place.id(one["ts"]), data), data) for one in changed for data in files_of(one)
        ]
        here = {file.key for file, _ in found}
        for one in changed:
            if one["ts"] in edited and one.get("subtype") != REVOKED:
                kept.output += _removed_files(ctx, place.id(one["ts"]), here)
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
        has_content = known is not None and file.has_content(known)
        wanted = self.config.files == "all" and not without
        if file.mode == files.HIDDEN and known is not None:
            kept.seen.append(file.key)  # keep the row from before the file was hidden
        elif known == file.version("content"):
            kept.seen.append(file.key)
        elif wanted:
            kept.seen.append(file.key)
            kept.tasks.append(self.download_file.task(file=file))
        elif has_content:
            # A row keeps the content that it already has.
            kept.output.append(file.update())
        else:
            kept.output.append(file.row(without=without))

    @task(cost={"files.info": 1})
    def get_file_info(self, ctx: Context, message: str, file: str) -> TaskResult:
        """Fetch the description of a file of which only the id is known.

        This is a file of another organization, an image of a block, or a channel's canvas.

        Args:
          ctx: The task's context.
          message: The id of the message's row; of a canvas, the channel's id.
          file: The file's id.
        """
        bare = File(id=file, message=message)
        known = ctx.fingerprints([bare.key])
        try:
            data = self._call(ctx, "files.info", file=file).data.get("file")
        except (Unreadable, PermanentError) as error:
            reason = files.refusal(error)
            if reason is None:
                raise
            if reason == files.DELETED:
                return TaskResult([TaskOutput.gone(bare.key)] if bare.key in known else [])
            row = bare.row(without=reason)
            return TaskResult(seen=[bare.key]) if bare.key in known else TaskResult([row])
        kept = Kept()
        if isinstance(data, dict) and data.get("id") == file:
            self._add_file(kept, File.of(message, data), known.get(bare.key))
        return TaskResult(kept.output, kept.tasks, seen=kept.seen)

    def _canvases(self, channel: str, canvases: Sequence[str]) -> list[Task]:
        """Return the tasks that compare a channel's own canvases with their rows."""
        return [self.get_file_info.task(message=channel, file=id) for id in canvases]

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
        except files.Unusable as error:
            return TaskResult([file.row(without=str(error))])
        except files.Gone:
            return TaskResult([TaskOutput.gone(file.key)])
        return TaskResult([file.row(blob.blob)])

    def _fetch(self, ctx: Context, file: File, blob: BlobWriter) -> None:
        """Download the file. If Slack refuses, test the token, and retry if it was renewed.

        Raises:
          TransientError: Slack refuses the file for the first time, although the token has the
            scope for files. It does so for a moment after an upload.
          Unusable: The token has the scope for files, but Slack refuses this file.
          Refused: The token may lack the scope.
        """
        token = self.credentials.token
        try:
            files.fetch(self.settings, token, file, blob, self._most_bytes)
        except files.Refused as error:
            answer = self._call(ctx, "auth.test")
            if self.credentials.token == token:
                if "files:read" not in scopes.granted(answer.headers):
                    raise
                if ctx.task.attempt == 1:
                    raise TransientError(str(error)) from None
                raise files.Unusable("access denied") from None
            ctx.charge(files.LIMIT)
            files.fetch(self.settings, self.credentials.token, file, blob, self._most_bytes)

    @property
    def _most_bytes(self) -> int:
        return self.config.max_file_mb * MB


def _removed_files(ctx: Context, message: str, here: Collection[str]) -> Iterator[TaskOutput]:
    """Yield the deletions of the kept files that a message no longer has.

    Args:
      ctx: The task's context.
      message: The id of the message's row. Its other children are replies.
      here: The ids of the rows of its present files.
    """
    for id in sorted(ctx.fingerprints(parent=message)):
        if id.startswith(f"{message}:") and id not in here:
            yield TaskOutput.gone(id)
