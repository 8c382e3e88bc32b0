"""The embedded servers, with real ones: who starts, shares and stops them, and as which user."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from core.embedded import Servers, Urls, secret_keys
from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey
from core.embedded.watcher import Watcher
from core.embedded.watcher_program import GRACE_SECONDS, POLL_SECONDS
from core.errors import PollingError, SettingsError
from core.settings import Settings

_processes = multiprocessing.get_context("spawn")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a home that does not exist yet, and stop at the end all servers that run in it."""
    home = tmp_path / "a höme"
    yield home
    stop_all(home)


def stop_all(home: Path) -> None:
    Postgres(home / "embedded").stop()
    Valkey(home / "embedded").stop()
    Watcher(home / "embedded").stop()


def settings(home: Path, **given: Any) -> Settings:
    return Settings(
        **{"_env_file": None, "database_url": None, "redis_url": None, "home": home, **given}
    )


def running(home: Path) -> tuple[bool, bool]:
    embedded = home / "embedded"
    return Postgres(embedded)._daemon.alive(), Valkey(embedded)._daemon.alive()


def pids(urls: Urls) -> tuple[int, int]:
    """Return the servers' process ids, as the servers report them."""
    with (
        psycopg.connect(urls.database_url) as connection,
        redis.Redis.from_url(urls.redis_url) as client,
    ):
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        assert row
        return int(row[0].split()[0]), client.info("server")["process_id"]


def use(home: Path, pipe: Connection, user: int | None = None) -> None:
    """Acquire the servers in another process, report their ids, and release them on request."""
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    try:
        with Servers(settings(home)) as urls:
            pipe.send(pids(urls))
            pipe.recv()
    except BaseException as error:
        pipe.send(error)
        raise
    pipe.send("released")


@contextmanager
def another(home: Path, user: int | None = None) -> Iterator[tuple[Any, Connection]]:
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=use, args=(home, theirs, user))
    process.start()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
        theirs.close()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_starts_real_servers_and_stops_them(home: Path) -> None:
    with Servers(settings(home)) as urls:
        with psycopg.connect(urls.database_url) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('höme')")
            shown = {
                name: connection.execute(f"SHOW {name}").fetchone()
                for name in ("listen_addresses", "fsync")
            }
            database = connection.execute("SELECT current_database()").fetchone()
        with redis.Redis.from_url(urls.redis_url) as client:
            client.set("kept", "yes")
            policy = client.config_get("maxmemory-policy")
        assert shown == {"listen_addresses": ("",), "fsync": ("on",)}
        assert database == ("polling",)
        assert policy == {"maxmemory-policy": "noeviction"}
    assert running(home) == (False, False)

    with Servers(settings(home)) as urls:
        with psycopg.connect(urls.database_url) as connection:
            assert connection.execute("SELECT word FROM kept").fetchone() == ("höme",)
        with redis.Redis.from_url(urls.redis_url) as client:
            assert client.get("kept") == b"yes"


def test_other_users_cannot_enter_the_folders(home: Path) -> None:
    with Servers(settings(home)):
        modes = {
            name: stat.S_IMODE((home / "embedded" / name).stat().st_mode)
            for name in (".", "postgres", "valkey")
        }
    assert set(modes.values()) == {0o700}


def test_concurrent_processes_share_the_servers_and_the_last_stops_them(
    home: Path,
) -> None:
    with another(home) as (_, first), another(home) as (_, second), another(home) as (_, third):
        assert first.recv() == second.recv() == third.recv()
        for pipe in (second, first):
            pipe.send("go")
            assert pipe.recv() == "released"
            assert running(home) == (True, True)
        third.send("go")
        assert third.recv() == "released"
        assert running(home) == (False, False)


def test_after_a_kill_the_next_user_joins_and_stops(home: Path) -> None:
    with another(home) as (process, pipe):
        before = pipe.recv()
        process.kill()
        process.join()
        assert running(home) == (True, True)
        with Servers(settings(home)) as urls:
            assert pids(urls) == before
        assert running(home) == (False, False)


def test_servers_killed_with_all_processes_start_again(home: Path) -> None:
    with another(home) as (process, pipe):
        postgres, valkey = pipe.recv()
        process.kill()
        for pid in (postgres, valkey):
            os.kill(pid, signal.SIGKILL)
        until(lambda: running(home) == (False, False))
    pid_file = home / "embedded" / "postgres" / "postmaster.pid"
    # As after a crash of a container, the id now belongs to a program that is not PostgreSQL.
    pid_file.write_text(pid_file.read_text().replace(str(postgres), str(os.getpid()), 1))
    with Servers(settings(home)) as urls:
        assert pids(urls)[0] != postgres


def test_a_forked_child_does_not_stop_the_servers_of_its_parent(home: Path) -> None:
    servers = Servers(settings(home))
    servers.acquire()
    child = os.fork()
    if not child:
        servers.release()
        servers.release()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pids(servers.acquire())
    servers.release()
    servers.release()
    assert running(home) == (False, False)


def test_a_forked_child_counts_as_a_user(home: Path) -> None:
    servers = Servers(settings(home))
    servers.acquire()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        servers.release()
        os._exit(0)
    servers.release()
    assert running(home) == (True, True)
    os.close(writer)
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert running(home) == (False, False)


def test_signals_of_our_terminal_do_not_reach_the_servers(home: Path) -> None:
    with Servers(settings(home)) as urls:
        assert not {os.getsid(pid) for pid in pids(urls)} & {os.getsid(0)}
        assert not {os.getpgid(pid) for pid in pids(urls)} & {os.getpgid(0)}


def test_the_servers_do_not_inherit_our_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGPORT": "1",
        "PGHOST": "other",
        "PGDATA": "/nowhere",
        "POLLING_SECRET_KEYS": "k",
    }.items():
        monkeypatch.setenv(name, value)
    with Servers(settings(home)) as urls, psycopg.connect(urls.database_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE seen (line text)")
        connection.execute("COPY seen FROM PROGRAM 'env'")
        query = "SELECT line FROM seen WHERE line ~ '^(POLLING_|PGPORT=1|PGHOST|PGDATA=/nowhere)'"
        assert connection.execute(query).fetchall() == []


def test_given_servers_are_returned_and_no_file_is_written(home: Path) -> None:
    given = settings(home, database_url="postgresql://db/x", redis_url="redis://cache")
    with Servers(given) as urls:
        assert urls == Urls("postgresql://db/x", "redis://cache")
    assert not home.exists()


def test_only_the_missing_server_is_embedded(home: Path) -> None:
    with Servers(settings(home, database_url="postgresql://db/x")) as urls:
        assert urls.database_url == "postgresql://db/x"
        assert running(home) == (False, True)
        with Servers(settings(home)):
            assert running(home) == (True, True)
        assert running(home) == (True, True)
    assert running(home) == (False, False)


@pytest.mark.parametrize("name", ["long " * 20, "one,two"])
def test_a_path_that_is_invalid_for_a_socket_gets_a_private_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    home = tmp_path_factory.mktemp("x") / name
    try:
        with Servers(settings(home)) as urls, Servers(settings(home)) as same:
            assert urls == same
            assert pids(urls)
            link = home / "embedded" / "postgres.socket"
            place = link.readlink()
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert not place.exists()
        assert not link.is_symlink()
    finally:
        stop_all(home)


def test_a_temporary_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    home = tmp_path / ("long " * 20)
    (home / "embedded").mkdir(parents=True)
    trap = tmp_path / "trap"
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    (home / "embedded" / "valkey.socket").symlink_to(trap)
    try:
        with Servers(settings(home)) as urls:
            assert pids(urls)
            assert not list(trap.iterdir())
    finally:
        stop_all(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_starts_servers_of_their_own_after_root(home: Path) -> None:
    with Servers(settings(home)) as urls:
        owner = (home / "embedded" / "postgres").stat().st_uid
        root_pids = pids(urls)
        assert owner != 0
        user = 65534
        place = Path("/tmp") / f"polling-test-{os.getpid()}"
        place.mkdir(mode=0o700)
        os.chown(place, user, user)
        try:
            with another(place, user) as (_, pipe):
                found = pipe.recv()
                assert not isinstance(found, BaseException), found
                assert not set(found) & set(root_pids)
                assert {Path(f"/proc/{pid}").stat().st_uid for pid in found} == {user}
                pipe.send("go")
                assert pipe.recv() == "released"
        finally:
            stop_all(place)
            shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to avoid being root")
def test_programs_below_a_private_folder_are_copied_for_the_unix_user(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.embedded import postgres, unix_user

    private, shared = tmp_path / "root only", Path(f"/tmp/polling-shared-{os.getpid()}")
    private.mkdir(mode=0o700)
    wheel = postgres._install(home).parent
    for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, private / folder.name, symlinks=True)
    monkeypatch.setattr(postgres, "_install", lambda _: private / wheel.name / "pginstall18")
    monkeypatch.setattr(unix_user, "_SHARED", shared)
    try:
        with Servers(settings(home)) as urls:
            assert pids(urls)
            assert [path.name.startswith("pgserver-") for path in shared.iterdir()] == [True]
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def test_data_of_another_version_are_refused_with_advice(home: Path) -> None:
    data = home / "embedded" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(
        PollingError, match=r"created by PostgreSQL 12; the installed wheel contains .*18"
    ):
        Servers(settings(home)).acquire()


def test_missing_wheels_are_reported_with_the_command_to_install_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.embedded.postgres.find_spec", lambda _: None)
    with pytest.raises(
        PollingError, match="DATABASE_URL is not set, and the embedded servers are not installed"
    ) as caught:
        Servers(settings(home)).acquire()
    assert "pip install -e '.[embedded]'" in caught.value.next_step("cli")


def test_a_server_that_fails_names_its_log_and_leaves_no_process(home: Path) -> None:
    broken = home / "embedded" / "valkey" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(PollingError, match="Valkey exited during startup") as caught:
        Servers(settings(home)).acquire()
    assert "valkey.log" in caught.value.next_step("cli")
    assert "nonsense" in (home / "embedded" / "valkey.log").read_text()
    assert running(home) == (False, False)


def test_the_key_is_made_once_and_for_its_owner_only(home: Path) -> None:
    first = secret_keys(settings(home))
    path = home / "secret.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret_keys(settings(home)) == first == (path.read_text(),)


def test_processes_that_begin_concurrently_get_one_key(home: Path) -> None:
    together = threading.Barrier(8)

    def key(_: int) -> tuple[str, ...]:
        together.wait()
        return secret_keys(settings(home))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(key, range(8)))) == 1


def test_a_key_that_others_can_read_is_refused(home: Path) -> None:
    secret_keys(settings(home))
    (home / "secret.key").chmod(0o640)
    with pytest.raises(SettingsError) as caught:
        secret_keys(settings(home))
    assert "chmod 600" in caught.value.next_step("cli")


def test_a_given_database_needs_given_keys(home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        secret_keys(settings(home, database_url="postgresql://db/x"))
    assert (caught.value.message, caught.value.next_step("cli")) == (
        "POLLING_SECRET_KEYS is not set",
        "Create one: polling keys new",
    )
    assert secret_keys(settings(home, database_url="postgresql://db/x", secret_keys="a, b")) == (
        "a",
        "b",
    )


# The watcher
# --------------------------------------------------------------------------------------------------


def exists(pid: int) -> bool:
    """Return true if a process has this id and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def delete(home: Path) -> None:
    """Delete the folder while its servers create and delete files."""

    def deleted() -> bool:
        shutil.rmtree(home, ignore_errors=True)
        return not home.exists()

    until(deleted)


@pytest.mark.timeout(120)
def test_servers_end_within_a_minute_after_their_last_user_was_killed(home: Path) -> None:
    with another(home) as (process, pipe):
        pipe.recv()
        process.kill()
        until(lambda: running(home) == (False, False), 60)
    until(lambda: not Watcher(home / "embedded").alive(), 10)
    with Servers(settings(home)) as urls:
        assert pids(urls), "the servers start again on their data"


def test_the_watcher_leaves_servers_to_a_user_that_joins_after_the_kill(home: Path) -> None:
    with another(home) as (process, pipe):
        before = pipe.recv()
        process.kill()
        process.join()
        with Servers(settings(home)) as urls:
            time.sleep(GRACE_SECONDS + 2 * POLL_SECONDS)  # The test asks that nothing happens.
            assert pids(urls) == before
    assert running(home) == (False, False)


@pytest.mark.timeout(120)
def test_servers_end_when_their_folder_is_gone_although_they_have_a_user(home: Path) -> None:
    with another(home) as (_, pipe):
        servers = pipe.recv()
        watcher = int((home / "embedded" / "watcher.pid").read_text())
        delete(home)
        until(lambda: not any(map(exists, (*servers, watcher))), 60)
    assert not home.exists()


@pytest.mark.timeout(120)
def test_servers_of_a_deleted_folder_end_and_those_of_its_successor_stay(home: Path) -> None:
    with another(home) as (process, pipe):
        old = pipe.recv()
        watcher = int((home / "embedded" / "watcher.pid").read_text())
        os.kill(watcher, signal.SIGSTOP)  # It looks again when both folders have had their servers.
        process.kill()
        process.join()
        delete(home)
        with Servers(settings(home)) as urls:
            new = pids(urls)
            os.kill(watcher, signal.SIGCONT)
            until(lambda: not any(map(exists, old)), 60)
            assert pids(urls) == new


@pytest.mark.timeout(120)
def test_a_user_that_joins_replaces_a_killed_watcher(home: Path) -> None:
    with another(home) as (process, pipe):
        pipe.recv()
        pid = int((home / "embedded" / "watcher.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Watcher(home / "embedded").alive())
        with another(home) as (second, other):
            other.recv()
            for each in (process, second):
                each.kill()
                each.join()
            until(lambda: running(home) == (False, False), 60)


def test_the_last_user_ends_the_watcher(home: Path) -> None:
    with Servers(settings(home)):
        pid = int((home / "embedded" / "watcher.pid").read_text())
        assert Watcher(home / "embedded").alive()
        assert os.getsid(pid) != os.getsid(0)
    assert not Watcher(home / "embedded").alive()
    assert not exists(pid)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_server_that_does_not_stop_is_killed(home: Path) -> None:
    with another(home) as (process, pipe):
        servers = pipe.recv()
        os.kill(servers[1], signal.SIGSTOP)
        process.kill()
        until(lambda: not any(map(exists, servers)), 60)
