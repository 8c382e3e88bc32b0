"""Servers with quirks of real ones: the tree arrives complete, or the run says what is missing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from pyftpdlib.filesystems import AbstractedFS

from core.testing import Harness

Patch = Callable[[Any, pytest.MonkeyPatch], None]

FILES = {"a": b"a" * 1000, "fail": b"b", "sub/b c": b"", "sub/deep/d": b"d" * 70_000,
    "failed to open/e": b"e", "output truncated/f": b"f"}  # fmt: skip


def replace_replies(old: str, new: str) -> Patch:
    """Change the beginning of replies.

    `{arg}` is the argument of the command, or the current directory.
    """

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        respond = server.handler.respond

        def changed(self: Any, reply: str, *args: Any, **options: Any) -> None:
            if reply.startswith(old):
                argument = server.commands[-1].partition(" ")[2] if server.commands else ""
                argument = argument or (self.fs.cwd if self.fs else "")
                reply = new.format(arg=argument, rest=reply[len(old) :])
            respond(self, reply, *args, **options)

        patch.setattr(server.handler, "respond", changed)

    return apply


def refuse(command: str, reply: str, times: int = 10**9) -> Patch:
    """Refuse a command."""
    left = [times]

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        original = getattr(server.handler, f"ftp_{command}")

        def refused(self: Any, *args: Any) -> Any:
            if left[0] > 0:
                left[0] -= 1
                self.respond(reply)
                return None
            return original(self, *args)

        patch.setattr(server.handler, f"ftp_{command}", refused)

    return apply


def without(*commands: str) -> Patch:
    """Do not know commands."""

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        known = {k: v for k, v in server.handler.proto_cmds.items() if k not in commands}
        patch.setattr(server.handler, "proto_cmds", known)

    return apply


def lists(change: Callable[[bytes], bytes]) -> Patch:
    """Change each line of LIST, MLSD and NLST."""

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        class Listed(AbstractedFS):  # type: ignore[misc]
            def format_list(self, *args: Any, **options: Any) -> Any:
                return map(change, super().format_list(*args, **options))

            def format_mlsx(self, *args: Any, **options: Any) -> Any:
                return map(change, super().format_mlsx(*args, **options))

        patch.setattr(server.handler, "abstracted_fs", Listed)

    return apply


def repeats(place: str) -> Patch:
    """Begin each name of LIST and MLSD with `place`, in which `{}` is the path of the directory."""

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        class Listed(AbstractedFS):  # type: ignore[misc]
            def format_list(self, basedir: str, listing: Any, *args: Any, **options: Any) -> Any:
                list_ = partial(super().format_list, **options)
                return self._placed(list_, basedir, listing, args)

            def format_mlsx(self, basedir: str, listing: Any, *args: Any, **options: Any) -> Any:
                list_ = partial(super().format_mlsx, **options)
                return self._placed(list_, basedir, listing, args)

            def _placed(self, original: Any, basedir: str, listing: Any, args: Any) -> Any:
                path = place.format(self.fs2ftp(basedir).rstrip("/")).encode()
                for name in listing:
                    end = f" {name}\r\n".encode()
                    for line in original(basedir, [name], *args):
                        yield line.removesuffix(end) + b" " + path + end[1:]

        patch.setattr(server.handler, "abstracted_fs", Listed)

    return apply


def lacks_facts(*facts: str) -> Patch:
    """Give fewer facts in MLSD and MLST."""

    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        class Facts(AbstractedFS):  # type: ignore[misc]
            def format_mlsx(
                self, basedir: str, listing: Any, perms: str, given: Any, ignore_err: bool = True
            ) -> Any:
                kept = [fact for fact in given if fact not in facts]
                return super().format_mlsx(basedir, listing, perms, kept, ignore_err)

        patch.setattr(server.handler, "abstracted_fs", Facts)

    return apply


def takes_options_for_names(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Take `-a` for a name, as old servers do."""
    original = server.handler.ftp_LIST

    def changed(self: Any, path: str) -> Any:
        if server.commands[-1] == "LIST -a":
            self.respond("550 -a: No such file or directory.")
            return None
        return original(self, path)

    patch.setattr(server.handler, "ftp_LIST", changed)


def lists_nothing_for_options(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Take `-a` for a name, and list it with a total and without an error."""
    original = server.handler.ftp_LIST

    def changed(self: Any, path: str) -> Any:
        if server.commands[-1] == "LIST -a":
            self.push_dtp_data(b"total 0\r\n", cmd="LIST")
            return path
        return original(self, path)

    patch.setattr(server.handler, "ftp_LIST", changed)


def needs_no_password(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Reply 230 to USER."""

    def user(self: Any, line: str) -> None:
        self.username, self.password = line, server.credentials["password"]
        self.handle_auth_success(str(server.home), self.password, "Welcome.")

    patch.setattr(server.handler, "ftp_USER", user)


def has_no_preliminary_reply(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Send 226 only, without 150 or 125 before it."""
    respond = server.handler.respond

    def changed(self: Any, reply: str, *args: Any, **options: Any) -> None:
        if not reply.startswith(("125 ", "150 ")):
            respond(self, reply, *args, **options)

    patch.setattr(server.handler, "respond", changed)


def sends_binary_only(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Refuse TYPE A."""
    original = server.handler.ftp_TYPE

    def changed(self: Any, line: str) -> None:
        if line == "A":
            self.respond("504 Command not implemented for that parameter.")
        else:
            original(self, line)

    patch.setattr(server.handler, "ftp_TYPE", changed)


def is_slow(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Take 20 ms for each command."""
    before = server.handler.pre_process_command

    def changed(self: Any, *args: Any) -> None:
        time.sleep(0.02)
        before(self, *args)

    patch.setattr(server.handler, "pre_process_command", changed)


def both(*patches: Patch) -> Patch:
    def apply(server: Any, patch: pytest.MonkeyPatch) -> None:
        for each in patches:
            each(server, patch)

    return apply


def requires_pret(server: Any, patch: pytest.MonkeyPatch) -> None:
    """Refuse a data connection whose transfer was not announced, as DrFTPD does."""
    features, announced = server.handler.ftp_FEAT, set[Any]()

    def feat(self: Any, line: str) -> None:
        self._extra_feats.append("PRET")
        features(self, line)

    def pret(self: Any, line: str) -> None:
        command = line.partition(" ")[0]
        self.respond("200 OK" if command in self.proto_cmds else "500 Unknown")
        announced.add(self)

    patch.setattr(server.handler, "ftp_FEAT", feat)
    patch.setattr(server.handler, "ftp_PRET", pret, raising=False)
    patch.setitem(
        server.handler.proto_cmds, "PRET", server.handler.proto_cmds["NOOP"] | {"arg": None}
    )
    for name in ("PASV", "EPSV"):
        original = getattr(server.handler, f"ftp_{name}")

        def passive(self: Any, line: str, original: Any = original) -> None:
            if self in announced:
                announced.discard(self)
                original(self, line)
            else:
                self.respond("530 PRET first.")

        patch.setattr(server.handler, f"ftp_{name}", passive)


QUIRKS: dict[str, Patch] = {
    "PRET is required": requires_pret,
    "FEAT is unknown": without("FEAT"),
    "FEAT is refused": refuse("FEAT", "530 Please login."),
    "OPTS is refused": refuse("OPTS", "501 Invalid option."),
    "PASV is unknown": without("PASV"),
    "PASV is not implemented": refuse("PASV", "502 PASV not implemented."),
    "PASV names another host": replace_replies("227 Entering", "227 Go (10,255,255,1,{rest}"),
    "SIZE is refused": refuse("SIZE", "550 Permission denied."),
    "SIZE needs binary": refuse("SIZE", "550 SIZE not allowed in ASCII mode."),
    "MDTM is refused": refuse("MDTM", "550 Permission denied."),
    "SIZE and MDTM are refused": both(
        refuse("SIZE", "550 Could not get file size."), refuse("MDTM", "550 No.")
    ),
    "MLST is refused": refuse("MLST", "550 No."),
    "REST is unknown": without("REST"),
    "no unique fact": lacks_facts("unique"),
    "no modify fact": lacks_facts("modify"),
    "no size fact": lacks_facts("size"),
    "no type fact": lacks_facts("type"),
    "names without facts": lacks_facts(
        "type", "perm", "size", "modify", "create", "unique", "unix.mode", "unix.uid", "unix.gid"
    ),
    "226 with a path": replace_replies("226 ", '226 Successfully transferred "{arg}"'),
    "226 with a failure": replace_replies("226 ", '226 Transfer of "/fail" failed? No. {arg}'),
    "250 after a transfer": replace_replies("226 ", "250 Requested file action okay. "),
    "226 of many lines": replace_replies("226 ", "226-Options: -a\r\n226-226 x\r\n226 Done. "),
    "125 before a transfer": replace_replies("150 ", "125 Data connection already open. "),
    "150 of many lines": replace_replies("150 ", "150-Accepted\r\n150 5 kbytes to download "),
    "no preliminary reply": has_no_preliminary_reply,
    "a greeting of many lines": replace_replies("220 ", "220-Hi\r\n 220 no\r\n220-\r\n220 "),
    "a greeting with a full stop": replace_replies("220 ", "220 vsftp-like. "),
    "230 of many lines": replace_replies("230 ", "230-\r\n230-226 x\r\n\r\n230 "),
    "no password": needs_no_password,
    "-a is a name": both(without("MLSD", "MLST"), takes_options_for_names),
    "-a is a name without files": both(without("MLSD", "MLST"), lists_nothing_for_options),
    "lines end with LF": lists(lambda line: line.replace(b"\r\n", b"\n")),
    "names with paths": repeats("{}/"),
    "names with ./": repeats("./"),
    "TYPE A is refused": sends_binary_only,
    "slow": is_slow,
    "busy for a moment": refuse("RETR", "450 File busy.", times=1),
    "overloaded for a moment": refuse("RETR", "452 Insufficient storage.", times=1),
    "no data connection for a moment": refuse("PASV", "425 Cannot open connection.", times=1),
    "a session that the server forgot": refuse("PASV", "530 Please login.", times=1),
}


def sync_until_complete(harness: Harness, runs: int = 4) -> Any:
    """Sync until a run leaves nothing out."""
    for _ in range(runs):
        result = harness.sync()
        if result.state == "succeeded" and not result.skipped_items:
            break
        forget_refusals(harness)
    return result


def forget_refusals(harness: Harness) -> None:
    """Let refused paths be tried again without their pause."""
    for partition in [name for name in harness.state if name.startswith("refused ")]:
        del harness.state[partition]


def kept(harness: Harness) -> dict[str, bytes]:
    return {
        path.removeprefix("/"): item.content or b""
        for path, item in harness.content.items()
        if item.kind == "file"
    }


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_tree_arrives_complete_in_spite_of(
    quirk: str, ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    QUIRKS[quirk](ftp_server, monkeypatch)
    for name, content in FILES.items():
        ftp_server.write(name, content)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = sync_until_complete(harness)
    assert (result.state, result.skipped_items) == ("succeeded", Counter())
    assert kept(harness) == FILES
    again = harness.sync()
    assert (again.state, again.skipped_items) == ("succeeded", Counter())
    assert kept(harness) == FILES


def test_a_name_that_stays_busy_is_skipped_alone(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieve = ftp_server.handler.ftp_RETR

    def busy(self: Any, file: str) -> Any:
        if Path(file).name == "fail":
            self.respond(
                "550 The process cannot access the file because it is being used by another"
                " process. "
            )
            return None
        return retrieve(self, file)

    monkeypatch.setattr(ftp_server.handler, "ftp_RETR", busy)
    for name, content in FILES.items():
        ftp_server.write(name, content)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    for _ in range(2):
        result = harness.sync()
        assert result.skipped_items == Counter({"refused by the server (550)": 1})
        assert not result.parked
    assert kept(harness) == {name: content for name, content in FILES.items() if name != "fail"}
    assert len([line for line in ftp_server.sent("RETR") if line.endswith("/fail")]) == 1


@pytest.mark.parametrize("command", ["RETR", "LIST", "MLSD"])
@pytest.mark.parametrize(
    "name", ["Too many users", "TLS required", "Please log in first", "Maximum sessions reached"]
)
def test_a_refused_name_that_reads_like_a_reply_is_skipped_alone(
    name: str, command: str, ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(ftp_server.handler, f"ftp_{command}")

    def refused(self: Any, path: str) -> Any:
        if Path(path).name == name:
            self.respond(f"550 {name}: Permission denied.")
            return None
        return original(self, path)

    monkeypatch.setattr(ftp_server.handler, f"ftp_{command}", refused)
    ftp_server.write(name if command == "RETR" else f"{name}/inside")
    for path, content in FILES.items():
        ftp_server.write(path, content)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert (result.state, result.parked) == ("succeeded", [])
    found = kept(harness)
    found.pop(f"{name}/inside", None)  # the server has another command to list directories
    assert found == FILES
    assert result.skipped_items.total() <= 1


def test_a_mailbox_that_deletes_what_was_read_loses_nothing(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp_server.handler, "on_file_sent", lambda self, file: Path(file).unlink())
    for name, content in FILES.items():
        ftp_server.write(name, content)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    assert harness.sync().state == "succeeded"
    assert kept(harness) == FILES


@pytest.mark.parametrize("reply", ["550 No files found.", "450 No files found", "550 Empty."])
def test_an_empty_directory_may_be_an_error(
    reply: str, ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last reply does not say so, and the run counts the directory as skipped."""

    def changed(name: str) -> None:
        original = getattr(ftp_server.handler, name)

        def listed(self: Any, path: str) -> Any:
            if not any(Path(path).iterdir()):
                self.respond(reply)
                return None
            return original(self, path)

        monkeypatch.setattr(ftp_server.handler, name, listed)

    changed("ftp_LIST")
    changed("ftp_MLSD")
    ftp_server.write("a", b"1")
    (ftp_server.home / "empty").mkdir()
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert result.state == "succeeded"
    skipped = Counter({"refused by the server (550)": 1}) if reply.endswith("Empty.") else Counter()
    assert result.skipped_items == skipped
    assert ("/empty" in harness.content) == (not skipped)
