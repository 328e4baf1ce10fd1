"""Redis that is away, comes back, wants a password or TLS; and the pre-flight check."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

from durable_monty import OrchestratorService, RQExecutor, Worker, init_db
from durable_monty.config import Config
from durable_monty_rq import checks
from support import functions as host
from support import servers
from support.rq_rig import Rig
from support.workers import eventually, running

SCRIPTS = Path(sys.executable).parent
TESTS = Path(host.__file__).parent.parent
SIMPLE = ("-w", "rq.SimpleWorker")


def command_line(url, folder, **settings):
    """A configuration in the folder, and the environment for commands there."""
    lines = [f"{key} = {value!r}" for key, value in {"redis_url": url, **settings}.items()]
    (folder / "durable-monty.toml").write_text(
        'executor = "rq"\n[store]\nurl = "sqlite:///a.db"\n[executors.rq]\n' + "\n".join(lines) + "\n"
    )
    return {**os.environ, "PYTHONPATH": str(TESTS)}


# Away


@contextlib.contextmanager
def nobody():
    """Nothing listens: connections are refused."""
    yield f"redis://127.0.0.1:{servers.free_port()}/0"


@contextlib.contextmanager
def silence():
    """Connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.parametrize("away", [nobody, pytest.param(silence, marks=pytest.mark.slow)])
def test_a_worker_whose_redis_is_away_says_so_at_once_and_keeps_trying(tmp_path, request, away):
    """Connecting and the first answer may take 3 s each; then it is told of, and the worker goes on."""
    with away() as url:
        environment = command_line(url, tmp_path)
        service = OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), Config())
        execution_id = service.start_execution("await add(1, 2)", [host.add], execution_id="waits", check=False)
        process = subprocess.Popen([SCRIPTS / "durable-monty", "worker"], env=environment, stderr=subprocess.PIPE)
        request.addfinalizer(process.kill)
        assert select.select([process.stderr], [], [], 30)[0], "it has not said anything"
        line = process.stderr.readline().decode()
        assert "WARNING" in line
        assert f"Redis at {url} does not answer" in line
        # "polling failed" may come between.
        lines = iter(process.stderr.readline, b"")
        assert any(b"submitting calls failed, they stay pending" in line for line in lines), "it has ended"
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stderr.close()
        (row,) = service.runtime.store.calls(execution_id)
        assert (row.status, row.attempt) in {("pending", 1), ("submitting", 1)}
        service.close()


@contextlib.contextmanager
def closing_at_once():
    """A port that takes connections and closes them; gives it, and the times at which that happened."""
    tried_at = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    tried_at.append(time.monotonic())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], tried_at
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_worker_whose_redis_comes_late_warns_within_5_seconds_backs_off_and_goes_on(
    tmp_path, request, start_rq_worker
):
    service = OrchestratorService(init_db(f"sqlite:///{tmp_path}/a.db"), Config())
    execution_id = service.start_execution("await add(1, 2)", [host.add], check=False)
    with closing_at_once() as (port, tried_at):
        url = f"redis://127.0.0.1:{port}/0"
        environment = command_line(url, tmp_path, queue="late")
        process = subprocess.Popen([SCRIPTS / "durable-monty", "worker"], env=environment, stderr=subprocess.PIPE)
        request.addfinalizer(process.stderr.close)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        eventually(lambda: tried_at)
        assert select.select([process.stderr], [], [], 5)[0], "it has not warned within 5 s of its first try"
        line = process.stderr.readline().decode()
        assert "WARNING" in line
        assert f"Redis at {url} does not answer" in line
        # The first pause is 0.2 s, and they double.
        eventually(lambda: any(later - earlier > 1 for earlier, later in itertools.pairwise(tried_at)))
        assert len(tried_at) < 100, "it does not back off"
    server = servers.Valkey(tmp_path, port=port)
    server.start()
    request.addfinalizer(server.kill)
    start_rq_worker(server.url, "late", *SIMPLE)
    assert service.wait(execution_id, 60)["output"] == 3
    assert process.poll() is None
    service.close()


def test_the_check_of_a_redis_that_is_away_exits_with_2_and_says_what_to_do(tmp_path):
    url = f"redis://127.0.0.1:{servers.free_port()}/0"
    done = subprocess.run(
        [SCRIPTS / "durable-monty", "executors", "check"],
        env=command_line(url, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"error: Redis at {url} does not answer: " in done.stdout
    assert "start it, or set redis_url" in done.stdout


@pytest.mark.parametrize("keeps_data", [True, False], ids=["with-aof", "without-persistence"])
def test_a_redis_that_goes_away_in_mid_run_and_comes_back_has_lost_nothing_of_ours(
    tmp_path, lite_service, start_rq_worker, keeps_data
):
    with servers.valkey(keeps_data=keeps_data) as server:
        rig = Rig(server.url, lite_service)
        executor = rig.executor("away", lost_after_seconds=3)
        start_rq_worker(server.url, "away")
        begun, release = tmp_path / "begun", tmp_path / "release"
        code = (
            "from asyncio import gather\nfirst = await add(1, 2)\nheld = await hold(begun, release)\n"
            "[first, held >= 1, *await gather(*[add(i, 1) for i in range(20)])]"
        )
        inputs = {"begun": str(begun), "release": str(release)}
        execution_id = lite_service.start_execution(code, [host.add, host.hold], inputs)
        with running(Worker(lite_service, executor)):
            eventually(begun.exists)
            server.kill()
            release.touch()
            server.start()
            # A `rq worker` ends when Redis goes; a supervisor starts it again.
            start_rq_worker(server.url, "away")
            assert lite_service.wait(execution_id, 60)["output"] == [3, True, *range(1, 21)]
        rig.close()


def test_calls_that_were_made_while_redis_was_away_run_when_it_is_back(tmp_path, lite_service, start_rq_worker):
    with servers.valkey() as server:
        server.kill()
        rig = Rig(server.url, lite_service)
        execution_id = lite_service.start_execution("await add(1, 2)", [host.add])
        with running(Worker(lite_service, rig.executor("later"))):
            eventually(lambda: lite_service.get_execution(execution_id)["status"] == "waiting")
            server.start()
            start_rq_worker(server.url, "later", *SIMPLE)
            assert lite_service.wait(execution_id, 60)["output"] == 3
        rig.close()


# Password and TLS


@contextlib.contextmanager
def relay(target_port, context):
    """Takes TLS off: what comes in on its port goes on to `target_port` as it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def serve(plain):
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(plain, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", target_port)) as inner,
            ):
                back = threading.Thread(target=pump, args=(inner, secure), daemon=True)
                back.start()
                pump(secure, inner)
                back.join()

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    threading.Thread(target=serve, args=(plain,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def test_a_redis_behind_tls_is_used_and_its_certificate_is_checked(rig, valkey, authority, tmp_path, start_rq_worker):
    """The server's binary is built without TLS: a relay before it speaks TLS with executor and worker."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with relay(valkey.port, context) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
        start_rq_worker(url, "secure", *SIMPLE)
        assert rig.result(rig.executor("secure", redis_url=url), "await add(1, 2)", [host.add]) == 3
        distrusting = rig.executor("secure", redis_url=f"rediss://127.0.0.1:{port}/0")
        (finding,) = distrusting.check()
        assert finding.level == "error"
        assert "certificate verify failed" in finding.message


@pytest.mark.parametrize("place", ["url", "setting"])
def test_a_password_is_used_and_never_shown(tmp_path, lite_service, start_rq_worker, caplog, place):
    secret = "s3cr3t-of-redis"
    with servers.valkey(password=secret) as server:
        rig = Rig(server.url, lite_service)
        with_password = server.url.replace("://", f"://:{secret}@")
        start_rq_worker(with_password, "guarded", *SIMPLE)
        if place == "url":
            executor = rig.executor("guarded", redis_url=with_password)
        else:
            executor = rig.executor("guarded", redis_password=secret)
        caplog.set_level("DEBUG")
        assert rig.result(executor, "await add(1, 2)", [host.add]) == 3
        shown = [repr(executor.settings), str(executor.settings), repr(executor), caplog.text, str(executor.check())]
        wrong = rig.executor("guarded", redis_password="wr0ng-of-redis")
        (finding,) = wrong.check()
        assert finding.level == "error"
        assert not [text for text in [*shown, str(finding)] if secret in text or "wr0ng" in text]
        rig.close()


def test_config_show_hides_the_password(tmp_path):
    environment = command_line("redis://user:s3cr3t/with@sign@host/0", tmp_path, redis_password="s3cr3t")
    done = subprocess.run(
        [SCRIPTS / "durable-monty", "config", "show"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "host/0" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize("url", ["http://:s3cr3t@host/0", "redis://:s3cr3t#x@host:6379/0", "redis://:s3cr3t/x@host/0"])
def test_a_url_that_cannot_be_used_is_an_error_that_holds_nothing_of_it(tmp_path, url):
    with pytest.raises(ValidationError) as raised:
        RQExecutor(redis_url=url)
    assert "it is not a URL of Redis" in str(raised.value)
    done = subprocess.run(
        [SCRIPTS / "durable-monty", "config", "check"],
        env=command_line(url, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "it is not a URL of Redis" in done.stderr
    assert "s3cr3t" not in str(raised.value) + done.stdout + done.stderr


# Check


def shown(findings):
    return [(finding.level, finding.message) for finding in findings]


def test_the_check_tells_version_persistence_workers_and_what_a_worker_has(rig, listening, valkey):
    queue = listening(*SIMPLE)
    executor = rig.executor(queue, check_functions=["support.functions.add", "support.functions.gone"])
    found = shown(executor.check())
    version = rig.connection.info("server")["redis_version"]
    assert ("info", f"Redis {version} at {valkey.url}") in found
    assert ("warning", "Redis keeps no append-only file: after a restart its jobs are lost and run again") in found
    assert ("info", f"1 workers listen on the queue {queue!r}, 0 jobs wait") in found
    assert ("info", "a worker has durable-monty-core 0.2.0") in found
    (error,) = [message for level, message in found if level == "error"]
    assert "'support.functions.gone'" in error


def test_the_check_of_a_redis_that_keeps_its_data_has_nothing_to_warn_of(start_rq_worker):
    with servers.valkey(keeps_data=True) as server:
        start_rq_worker(server.url, "kept", *SIMPLE)
        executor = RQExecutor(queue_name="kept", redis_url=server.url)
        assert {finding.level for finding in executor.check()} == {"info"}
        executor.stop(0)


def test_the_check_of_a_queue_that_nobody_serves_names_the_command(rig):
    (error,) = [finding for finding in rig.executor("deserted").check() if finding.level == "error"]
    assert error.message == "no worker listens on the queue 'deserted'"
    assert error.remedy == "start `rq worker deserted`"


def test_the_check_of_a_worker_with_the_other_serializer_names_the_switch(rig, listening):
    queue = listening("-S", "json")
    (error,) = [finding for finding in rig.executor(queue).check() if finding.level == "error"]
    assert f"start it as `rq worker {queue}`" in error.message


def test_the_check_of_a_worker_that_is_busy_says_so(rig, valkey, start_rq_worker, tmp_path, monkeypatch):
    from support.rq_rig import make_call, poll

    monkeypatch.setattr(checks, "_PROBE_SECONDS", 0.3)
    start_rq_worker(valkey.url, "busy", *SIMPLE)
    begun, release = tmp_path / "begun", tmp_path / "release"
    executor = rig.executor("busy")
    call = make_call(host.hold, str(begun), str(release))
    executor.submit([call])
    eventually(begun.exists)
    assert ("warning", "no worker of the queue 'busy' answered within 0 s: they are busy, or stuck") in shown(
        executor.check()
    )
    release.touch()
    poll(executor, [call])
    assert rig.connection.llen("rq:queue:busy") == 0, "the question was taken back"


def test_a_unix_socket_is_used(tmp_path, lite_service, start_rq_worker):
    with servers.valkey() as server:
        rig = Rig(server.url, lite_service)
        start_rq_worker(server.url, "local", *SIMPLE)
        executor = rig.executor("local", redis_url=f"unix://{server.socket}")
        assert rig.result(executor, "await add(1, 2)", [host.add]) == 3
        rig.close()
