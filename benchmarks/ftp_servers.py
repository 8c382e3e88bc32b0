"""vsftpd and ProFTPD for the benchmark `ftp`, and the connections that they have.

`tools/ftp-servers.sh --peers` unpacks them and the peers from Debian's packages.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.processes import ROOT, ended, program, wait_until

FOLDER = Path(os.environ.get("POLLING_TEST_FTP_SERVERS", ROOT / ".cache/ftp-servers"))
LOCAL = "127.0.0.1"
ESTABLISHED = "01"
WATCH_SECONDS = 0.002

SERVERS = ("vsftpd", "proftpd")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server with anonymous access.

    Attributes:
      home: The folder that it serves as `/`.
      host: The address at which clients reach it.
    """

    name: str
    home: Path
    host: str
    port: int


def unpacked(name: str) -> str:
    """Return the path of a program: one from the unpacked packages, or an installed one."""
    for folder in ("usr/bin", "usr/sbin"):
        if (path := FOLDER / folder / name).exists():
            return str(path)
    if (installed := shutil.which(name)) is None:
        raise RuntimeError(f"no {name}: run tools/ftp-servers.sh --peers")
    return installed


def environment() -> dict[str, str]:
    """Return the variables with which unpacked programs find their libraries."""
    machine = os.uname().machine
    paths = [FOLDER / f"{lib}/{machine}-linux-gnu" for lib in ("usr/lib", "lib")]
    return {"LD_LIBRARY_PATH": ":".join(map(str, paths))}


@contextmanager
def serve(
    name: str, home: Path, *, limit: int = 0, listen: str = LOCAL, host: str = LOCAL
) -> Iterator[Server]:
    """Run a server.

    Args:
      name: `vsftpd` or `proftpd`.
      home: The folder to serve.
      limit: The number of connections that it allows. Default: many.
      listen: The address on which it listens.
      host: The address at which clients reach it.
    """
    folder = Path(tempfile.mkdtemp(prefix="ftp-"))
    folder.chmod(0o755)
    port = _free_port(listen)
    start = _vsftpd if name == "vsftpd" else _proftpd
    arguments = start(folder, home, port, limit, listen, host)
    log = folder / "log"
    try:
        with program(arguments, environment(), log) as pid:
            wait_until(lambda: _answers(listen, port) or ended(pid), f"{name} did not answer")
            if ended(pid):
                raise RuntimeError(f"{name} exited: {log.read_text()[-2_000:]}")
            yield Server(name, home, host, port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(listen: str) -> int:
    """Return a free port below those that the system gives to outgoing connections."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server((listen, port)):
            return port
    raise RuntimeError("no free port")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _vsftpd(
    folder: Path, home: Path, port: int, limit: int, listen: str, host: str
) -> Sequence[str]:
    empty = folder / "empty"
    empty.mkdir(mode=0o555)
    settings = {
        "listen": "YES", "listen_ipv6": "NO", "listen_port": port, "listen_address": listen,
        "pasv_address": host, "background": "NO", "anonymous_enable": "YES", "local_enable": "NO",
        "anon_root": home, "no_anon_password": "YES", "secure_chroot_dir": empty,
        "seccomp_sandbox": "NO", "max_clients": limit, "anon_world_readable_only": "NO",
        "ftp_username": "bin",
    }  # fmt: skip
    config = folder / "vsftpd.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    config.chmod(0o600)
    return [unpacked("vsftpd"), str(config)]


def _proftpd(
    folder: Path, home: Path, port: int, limit: int, listen: str, host: str
) -> Sequence[str]:
    user = pwd.getpwuid(os.getuid()).pw_name
    config = folder / "proftpd.conf"
    config.write_text(f"""\
ServerName bench
ServerType standalone
DefaultServer on
DefaultAddress {listen}
MasqueradeAddress {host}
UseIPv6 off
Port {port}
User {user}
Group {user}
RootLogin on
AuthOrder mod_auth_unix.c
PidFile {folder}/pid
ScoreboardFile {folder}/scoreboard
SystemLog {folder}/system.log
WtmpLog off
TransferLog none
UseReverseDNS off
{f"MaxClients {limit}" if limit else ""}
<Anonymous {home}>
  User {user}
  Group {user}
  UserAlias anonymous {user}
  RequireValidShell off
</Anonymous>
""")
    return [unpacked("proftpd"), "-n", "-q", "-c", str(config)]


class Watcher:
    """Counts the control connections to a server, from outside, in the kernel's table.

    Connections that are open at the beginning do not count.

    Attributes:
      peak: The largest number of connections at one time.
      connections: The number of connections in total.
    """

    def __init__(self, port: int) -> None:
        self._port = f":{port:04X}"
        self._seen: set[tuple[str, str]] = set()
        self._stop = threading.Event()
        self.peak = 0

    @property
    def connections(self) -> int:
        return len(self._seen)

    def __enter__(self) -> Self:
        self._before = self._open()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            now = self._open() - self._before
            self.peak = max(self.peak, len(now))
            self._seen |= now

    def _open(self) -> set[tuple[str, str]]:
        """Return the client's side of the established connections."""
        lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return {
            (line[1], line[2])
            for line in lines
            if line[2].endswith(self._port) and line[3] == ESTABLISHED
        }
