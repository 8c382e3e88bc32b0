"""Copies of an FTP or SFTP server with rclone, lftp, curl and OpenSSH's `sftp`, into a folder.

Each program has its default settings, besides the number of connections. rclone uses TLS 1.2: it
cannot resume sessions of TLS 1.3 with vsftpd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ftp_servers import Server, environment, unpacked


def rclone(server: Server, connections: int, into: Path) -> float:
    """Copy the tree with rclone (rclone.org/ftp, rclone.org/sftp); return the seconds."""
    address = f"host={server.host},port={server.port},user={server.username}"
    tls = ",explicit_tls=true,no_check_certificate=true,disable_tls13=true"
    remote = f":ftp,{address}{tls if server.certificate else ''}:"
    if server.key is not None:
        remote = f":sftp,{address},key_file={server.key},shell_type=none:{server.home}"
    command = [unpacked("rclone"), "copy", remote, str(into), "--transfers", str(connections),
        "--config", os.devnull, "--ftp-pass", _run([unpacked("rclone"), "obscure", "x"]).strip(),
        "--retries", "1"]  # fmt: skip
    return _seconds(command, server, into)


def lftp(server: Server, connections: int, into: Path) -> float:
    """Copy the tree with lftp's `mirror`; return the seconds."""
    login, root = f"open -u anonymous,x ftp://{server.host}:{server.port}", "/"
    if server.key is not None:
        login = (
            f'set sftp:connect-program "ssh -a -x {" ".join(_ssh_options(server))}";'
            f" open -u {server.username},x sftp://{server.host}:{server.port}"
        )
        root = str(server.home)
    script = f"set cmd:fail-exit yes; {login}; mirror --parallel={connections} {root} {into}"
    return _seconds([unpacked("lftp"), "--norc", "-c", script], server, into)


def curl(server: Server, connections: int, into: Path) -> float:
    """Fetch the files with curl; return the seconds."""
    urls = [
        word
        for path in _files(server.home)
        for word in ("-o", str(into / path.name), f"ftp://{server.host}:{server.port}/{path.name}")
    ]
    command = [unpacked("curl"), "-sS", "--parallel", "--parallel-max", str(connections), *urls]
    return _seconds(command, server, into)


def sftp(server: Server, _connections: int, into: Path) -> float:
    """Fetch the files with OpenSSH's `sftp`, over one connection; return the seconds."""
    options = ["-q", "-r", "-P", str(server.port), *_ssh_options(server)]
    remote = f"{server.username}@{server.host}:{server.home}/*"
    return _seconds([unpacked("sftp"), *options, remote, str(into)], server, into)


def _ssh_options(server: Server) -> list[str]:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return ["-i", str(server.key), "-F", "none", *(f"-o{option}" for option in options)]


def _seconds(command: Sequence[str], server: Server, into: Path) -> float:
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    began = time.monotonic()
    _run(command)
    seconds = time.monotonic() - began
    if (got := len(_files(into))) != (all_ := len(_files(server.home))):
        raise RuntimeError(f"{command[0]} copied {got} of {all_} files")
    shutil.rmtree(into)
    return seconds


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2_000:]}")
    return done.stdout
