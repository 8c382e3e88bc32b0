"""Copies of an FTP server with rclone, lftp and curl, into a folder.

Each program has its default settings, besides the number of connections.
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
    """Copy the tree with rclone (rclone.org/ftp); return the seconds."""
    remote = f":ftp,host={server.host},port={server.port},user=anonymous:"
    command = [unpacked("rclone"), "copy", remote, str(into), "--transfers", str(connections),
        "--config", os.devnull, "--ftp-pass", _run([unpacked("rclone"), "obscure", "x"]).strip(),
        "--retries", "1"]  # fmt: skip
    return _seconds(command, server, into)


def lftp(server: Server, connections: int, into: Path) -> float:
    """Copy the tree with lftp's `mirror`; return the seconds."""
    script = (
        f"set cmd:fail-exit yes; open -u anonymous,x ftp://{server.host}:{server.port};"
        f" mirror --parallel={connections} / {into}"
    )
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
