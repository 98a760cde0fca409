"""`python -m planaria.supervisor --config-fd N [--role ROLE] [--status-fd N] [--lifeline-fd N]`: run until stopped.

Runs a broker, or with `--role worker` the subscribers of a worker. Started by `planaria serve`, `planaria worker` and the
embedded Broker. Reports the result of the start in one line of JSON on the status
descriptor, {"ready": true, "endpoint", "control", "instance_id", "pid", "data"} or {"error": "..."}; without one, a line
for a person on standard output, or the error on standard error. Exit code 0 after an orderly stop, 1 if it could not
start or left unkillable processes behind, 2 for wrong arguments.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # until all is loaded, by Launcher.warm_up: a pass over the modules frees next to nothing

import contextlib
import json
import logging
import os
import random
import secrets
import select
import signal
import socket
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from ..transport.endpoints import DEFAULT_ENDPOINT, PathTooLong, control_endpoint
from ..transport.protocol.deployments import proof_of
from . import logs
from .broker_tree import GATEWAY, Role, broker_tree, preloaded_modules, worker_tree
from .capacity import Capacity, capacity_of, control_connections
from .child import raise_file_limit
from .config import BrokerConfig, ConfigError, from_json, received
from .cpu_latency import LatencyRefused, hold_cpu_latency
from .data_directory import DataDirectory, DataDirectoryError, open_data_directory, wait_for_predecessors
from .http import AUTO, http_arguments
from .launcher import Launcher
from .lifecycle import SupervisorIdentity
from .machine import SupervisorMachine, Timing
from .measurement import measure
from .node import controller_arguments, endpoints_of, identity_in, link_arguments, require_one_machine
from .process import Settings, SupervisorProcess
from .restart import RestartPolicy
from .run_directory import (
    RunDirectoryError,
    create_run_directory,
    remove_run_directory,
    run_directory_of,
    say_endpoint,
    write_proof,
)
from .security import check_http_endpoint, console_arguments, gateway_security, tls_door
from .standard_streams import lose_unwritable_output, open_missing_standard_streams
from .stop_gate import StopPolicy

SECRET_BYTES = 16
PORT_TIMEOUT_S = 1.0
"""Time to wait for a port that is still bound, for example by the gateway of a supervisor that was just killed."""
MAX_LOG_BYTES = 16 * 1024 * 1024
"""A log file larger than this is renamed to `.1` at the start."""
JITTER = (0.8, 1.2)


class CannotStart(Exception):
    """The broker cannot start; the message is one line for the operator."""


class Arguments(msgspec.Struct):
    config: BrokerConfig
    role: Role
    status_fd: int | None = None
    lifeline_fd: int | None = None


class StatusLine:
    """Reports the result of the start, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.has_failed = False

    def write(self, **fields: Any) -> None:
        self.has_failed = "error" in fields
        if self._descriptor is not None:
            # The reader, our starter, is gone; the lifeline reports that as well.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor, json.dumps(fields).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = None
        elif self.has_failed:
            print(f"planaria: {fields['error']}", file=sys.stderr)
        else:
            # For a person at a terminal; the logs go to standard error.
            print(greeting(**fields), flush=True)


def greeting(*, endpoint: str, data: str, pid: int, **_: Any) -> str:
    # A wildcard address can be listened at, but not connected to.
    reachable = endpoint.replace("//*:", "//127.0.0.1:").replace("//0.0.0.0:", "//127.0.0.1:")
    connect = "" if reachable == DEFAULT_ENDPOINT else f" --connect {reachable}"
    return (
        f"planaria: serving on {endpoint} (data {data}, pid {pid});"
        f' "planaria status{connect}" shows its processes, Ctrl-C stops it'
    )


def main(argv: list[str]) -> int:
    try:
        arguments = parse(argv)
    except (ValueError, IndexError) as error:
        print(f"planaria.supervisor: {error}", file=sys.stderr)
        return 2
    except ConfigError as error:
        StatusLine(_descriptor_of(argv, "--status-fd")).write(error=str(error))
        return 1
    status = StatusLine(arguments.status_fd)
    try:
        data = open_data_directory(Path(arguments.config.data), lambda: is_cancelled(arguments.lifeline_fd))
        try:
            failure = serve(arguments, data, status)
        finally:
            data.close()
    except (
        DataDirectoryError, RunDirectoryError, PathTooLong, CannotStart, ConfigError, LatencyRefused
    ) as error:  # fmt: skip
        status.write(error=str(error))
        return 1
    return 1 if failure else 0


def is_cancelled(lifeline: int | None) -> bool:
    """Return True if a waiting start is cancelled: by a signal, which is blocked, or by its program's end."""
    if signal.sigpending() & {signal.SIGTERM, signal.SIGINT}:
        return True
    if lifeline is None:
        return False
    # Not `select`, which refuses descriptors from 1024 on: the embedding program may have had many.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    return bool(poll.poll(0))


def parse(argv: list[str]) -> Arguments:
    """Parse the arguments. Raises ValueError for wrong arguments, ConfigError for a wrong configuration."""
    names = {"--config-fd", "--role", "--status-fd", "--lifeline-fd"}
    for name in argv[::2]:
        if name not in names:
            raise ValueError(f"unknown argument {name!r}")
    if len(argv) % 2:
        raise ValueError(f"{argv[-1]} needs a value")
    given = dict(zip(argv[::2], argv[1::2], strict=True))
    sent = _descriptor_of(argv, "--config-fd")
    return Arguments(
        from_json("{}") if sent is None else received(sent),
        msgspec.convert(given.get("--role", "broker"), Role),
        _descriptor_of(argv, "--status-fd"),
        _descriptor_of(argv, "--lifeline-fd"),
    )


def _descriptor_of(argv: list[str], name: str) -> int | None:
    if name not in argv:
        return None
    descriptor = int(argv[argv.index(name) + 1])
    # Not inherited by children: a pipe ends only when its last holder closes it.
    os.set_inheritable(descriptor, False)
    return descriptor


def serve(arguments: Arguments, data: DataDirectory, status: StatusLine) -> str:
    """Run the broker of a locked data directory until it has stopped.

    Returns the reason of a disorderly end, else "".
    """
    config = arguments.config
    send_logs_to(config.log_file, data.path)
    logs.set_up(config.log_level, config.log_format, "supervisor", data.starts)
    logger = logging.getLogger(__name__)
    if not wait_for_predecessors(data.path):
        logs.event(logger, logging.WARNING, "actors of an earlier supervisor are still there")
    is_broker = arguments.role == "broker"
    cluster = security = tls = None
    if is_broker:
        check_port(config.endpoint)
        cluster = cluster_arguments(config, data.path)
        security = gateway_security(config, data.path)
        check_http_endpoint(config)
        if config.http_endpoint not in ("", AUTO):
            check_port(f"tcp://{config.http_endpoint.removeprefix('http://')}")
        if console_arguments(config, security) is not None:
            check_port(f"tcp://{config.console}")
        tls = tls_door(config, security)
        if tls is not None:
            check_port(config.tls_endpoint)
    hold_cpu_latency(config.cpu_latency_us)
    raise_file_limit()
    instance_id = uuid.uuid4().hex
    run_directory = run_directory_of(data.path, data.starts)
    # A worker is found under no endpoint.
    create_run_directory(run_directory, instance_id, config.endpoint if is_broker else "")
    try:
        return run_tree(arguments, data, status, str(run_directory), instance_id, cluster, security, tls)
    finally:
        remove_run_directory(run_directory)


def cluster_arguments(config: BrokerConfig, data_directory: Path) -> dict[str, Any] | None:
    """Return the controller's arguments that concern the cluster; None for a broker on one machine.

    Raises ConfigError, DataDirectoryError or CannotStart.
    """
    endpoints = endpoints_of(config)
    if endpoints is None:
        require_one_machine(data_directory)
        return None
    check_port(config.peer_endpoint)
    return controller_arguments(config, identity_in(data_directory, config), endpoints)


def run_tree(
    arguments: Arguments,
    data: DataDirectory,
    status: StatusLine,
    run_directory: str,
    instance_id: str,
    cluster: dict[str, Any] | None,
    security: dict[str, Any] | None,
    tls: dict[str, Any] | None,
) -> str:
    """Start the processes and keep them running until a stop. Returns the reason of a disorderly end, else ""."""
    config = arguments.config
    control = control_endpoint(run_directory)
    limits = measure()
    secret = secrets.token_bytes(SECRET_BYTES)
    write_proof(Path(run_directory), proof_of(secret))

    def on_up(endpoint: str) -> None:
        say_endpoint(Path(run_directory), endpoint)
        status.write(
            ready=True,
            endpoint=endpoint,
            control=control,
            instance_id=instance_id,
            pid=os.getpid(),
            data=str(data.path),
        )

    supervisor = SupervisorProcess(
        build_machine(
            arguments.role,
            config,
            data,
            instance_id,
            capacity_of(limits, config.max_actors),
            cluster,
            security,
            tls,
        ),
        Launcher(preloaded_modules(arguments.role, with_http=bool(config.http_endpoint)), run_directory),
        Settings(
            run_directory=run_directory,
            data_directory=str(data.path),
            control_endpoint=control,
            instance_id=instance_id,
            secret=secret,
            is_secured=security is not None,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            hang_timeout_ms=config.hang_timeout_ms,
            clock=data.clock,
            log_level=config.log_level,
            log_format=config.log_format,
            lifeline=arguments.lifeline_fd,
            max_connections=control_connections(limits),
        ),
        on_up=on_up,
        on_failed=lambda reason: status.write(error=reason),
        on_stopping=data.say_stopping,
    )
    supervisor.run()
    return supervisor.failure


def build_machine(
    role: Role,
    config: BrokerConfig,
    data: DataDirectory,
    instance_id: str,
    capacity: Capacity,
    cluster: dict[str, Any] | None = None,
    security: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
) -> SupervisorMachine:
    arguments = {
        "offsets_partitions": config.offsets_partitions,
        "delayed_partitions": config.delayed_partitions,
        "disk_reserve_bytes": config.disk_reserve_bytes,
        "slow_sync_ms": config.slow_sync_ms,
        "transaction_coordinators": config.transaction_coordinators,
        "coordinator_idle_ms": config.coordinator_idle_ms,
        "offsets_retention_ms": config.offsets_retention_ms,
        "disconnect_grace_ms": config.disconnect_grace_ms,
        "partition_idle_ms": config.partition_idle_ms,
        "audit_retention_ms": config.audit_retention_ms,
        "audit_retention_bytes": config.audit_retention_bytes,
        "max_actors": capacity.new_actors,
        "actors_limit": capacity.limit,
        "topic_defaults": msgspec.to_builtins(config.topic_defaults),
        "cluster": cluster,
    }
    return SupervisorMachine(
        worker_tree()
        if role == "worker"
        else broker_tree(
            config.endpoint,
            arguments,
            link_arguments(config, instance_id),
            security,
            http_arguments(
                config.http_endpoint,
                config.node,
                "" if security is None else security["server_key_file"],
                kafka_names=config.kafka_names,
                has_bridge=config.http_bridge,
            ),
            console_arguments(config, security),
            tls,
            is_audited=config.audit == "on" or (config.audit == "auto" and security is not None),
        ),
        SupervisorIdentity(
            pid=os.getpid(),
            instance_id=instance_id,
            data_directory=str(data.path),
            public_address=GATEWAY,
        ),
        policy=RestartPolicy(
            intensity=config.restart_intensity,
            period_ms=config.restart_period_ms,
            backoff_reset_ms=config.backoff_reset_ms,
            quarantine_retry_ms=config.quarantine_retry_ms,
        ),
        timing=Timing(
            hang_timeout_ms=config.hang_timeout_ms,
            abort_grace_ms=config.abort_grace_ms,
            check_interval_ms=config.heartbeat_interval_ms,
        ),
        jitter=lambda: random.uniform(*JITTER),
        capacity=capacity,
        stop_policy=stop_policy(config),
    )


def stop_policy(config: BrokerConfig) -> StopPolicy:
    if not config.cluster:
        return "at_once"
    return "permitted" if config.refuse_unsafe_stop else "prepared"


def send_logs_to(log_file: str, data_directory: Path) -> None:
    """Redirect standard error itself to the file, so that it also contains all output of the tree's processes."""
    if not log_file:
        return
    path = data_directory / log_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.rename(path.with_name(path.name + ".1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise CannotStart(f"log file {path} is not writable: {error.strerror}") from error
    os.dup2(descriptor, 2)
    os.close(descriptor)


def check_port(endpoint: str) -> None:
    """Fail now, in one line, rather than after the gateway's third attempt. Raises CannotStart."""
    host, _, port = endpoint.partition("://")[2].rpartition(":")
    if port == "*":
        return
    deadline = time.monotonic() + PORT_TIMEOUT_S
    while (error := _bind_error(host.strip("[]"), int(port))) is not None:
        if time.monotonic() > deadline:
            raise CannotStart(f"cannot listen on {endpoint}: {error}")
        # No event reports that a port becomes free, so poll.
        time.sleep(0.02)


def _bind_error(host: str, port: int) -> str | None:
    if host == "*":
        host = "0.0.0.0"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def leave(code: int) -> NoReturn:
    """Exit without the interpreter's cleanup, in which multiprocessing waits for children that cannot die."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(argv: list[str]) -> int:
    """Return the exit code, also after an error: an interpreter that ends by itself would wait for the actors, and they
    for its end."""
    open_missing_standard_streams()
    lose_unwritable_output()
    try:
        return main(argv)
    except BaseException:  # noqa: BLE001 - the outermost frame
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    leave(run(sys.argv[1:]))
