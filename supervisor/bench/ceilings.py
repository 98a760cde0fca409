"""Limits of this machine without any broker: the reference of every row of the bench.

Measures raw sockets and raw files in the same run as the rows: absolute numbers mean little on shared machines.
"""

import multiprocessing
import os
import socket as unix
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

ECHO_ROUNDS = 2_000
SYNC_ROUNDS = 500
DURABLE = b"x" * 180
STREAM_FRAME_BYTES = 110_000
STREAM_FRAMES = 5_000
WRITE_BYTES = 256 * 1024 * 1024
WRITE_CHUNK_BYTES = 1024 * 1024


class Ceilings(msgspec.Struct, frozen=True, kw_only=True):
    """Measured limits: microseconds and megabytes a second."""

    zmq_round_trip_us: float
    unix_round_trip_us: float
    """Round trip over a Unix socket, which the waiting thread of each process reads itself."""
    zmq_stream_mb_s: float
    durable_echo_us: float
    """Round trip to a process that writes and syncs before it answers: the lower bound of an acknowledgement."""
    fdatasync_us: float
    """Median of one small write and its fdatasync."""
    write_mb_s: float
    """Into the page cache."""
    etcd_transaction_us: float | None = None
    """Median of one guarded write to the cluster's etcd; None for a bench without a cluster."""


def measure_ceilings(directory: Path) -> Ceilings:
    """Measure with a second process for the sockets and a scratch file in `directory` for the disk."""
    round_trip_us, durable_echo_us, stream_mb_s = _measure_sockets(directory)
    unix_round_trip_us = _measure_unix_socket(directory / "unix-echo")
    fdatasync_us, write_mb_s = _measure_disk(directory / "ceiling")
    return Ceilings(
        zmq_round_trip_us=round_trip_us,
        unix_round_trip_us=unix_round_trip_us,
        zmq_stream_mb_s=stream_mb_s,
        durable_echo_us=durable_echo_us,
        fdatasync_us=fdatasync_us,
        write_mb_s=write_mb_s,
    )


def _measure_sockets(directory: Path) -> tuple[float, float, float]:
    endpoint = f"ipc://{directory}/echo"
    peer = multiprocessing.get_context("spawn").Process(
        target=_echo, args=(endpoint, str(directory / "echoed")), daemon=True
    )
    peer.start()
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    try:
        _timed_echo(socket, b"warm")
        round_trips = [_timed_echo(socket, b"ping") for _ in range(ECHO_ROUNDS)]
        durable = [_timed_echo(socket, DURABLE) for _ in range(SYNC_ROUNDS)]
        frame = bytes(STREAM_FRAME_BYTES)
        started = time.perf_counter()
        for _ in range(STREAM_FRAMES):
            socket.send_multipart([b"", frame], copy=False)
        socket.send(b"end")
        socket.recv()
        took_s = time.perf_counter() - started
    finally:
        peer.kill()
        peer.join()
        socket.close()
        context.term()
    stream_mb_s = STREAM_FRAMES * STREAM_FRAME_BYTES / took_s / 1e6
    return statistics.median(round_trips) * 1e6, statistics.median(durable) * 1e6, stream_mb_s


def _timed_echo(socket: "zmq.Socket[bytes]", message: bytes) -> float:
    started = time.perf_counter()
    socket.send(message)
    socket.recv()
    return time.perf_counter() - started


def _echo(endpoint: str, path: str) -> None:
    """Run the other process: answer single frames, durable ones after a sync; discard pairs."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    while True:
        frames = socket.recv_multipart()
        if len(frames) == 2:
            if frames[1] == DURABLE:
                os.write(descriptor, DURABLE)
                os.fdatasync(descriptor)
            socket.send_multipart(frames)


def _measure_unix_socket(path: Path) -> float:
    with unix.socket(unix.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        peer = multiprocessing.get_context("spawn").Process(target=_unix_echo, args=(str(path),), daemon=True)
        peer.start()
        try:
            own, _ = listener.accept()
            with own:
                round_trips = [_timed_unix_echo(own) for _ in range(ECHO_ROUNDS)]
        finally:
            peer.kill()
            peer.join()
    return statistics.median(round_trips) * 1e6


def _timed_unix_echo(own: unix.socket) -> float:
    started = time.perf_counter()
    own.send(b"ping")
    own.recv(64)
    return time.perf_counter() - started


def _unix_echo(path: str) -> None:
    """Run the other process: answer until it is killed."""
    with unix.socket(unix.AF_UNIX) as own:
        own.connect(path)
        while message := own.recv(64):
            own.send(message)


def _measure_disk(path: Path) -> tuple[float, float]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        syncs = [_timed_sync(descriptor) for _ in range(SYNC_ROUNDS)]
        chunk = bytes(WRITE_CHUNK_BYTES)
        started = time.perf_counter()
        for _ in range(WRITE_BYTES // WRITE_CHUNK_BYTES):
            os.write(descriptor, chunk)
        write_s = time.perf_counter() - started
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(syncs) * 1e6, WRITE_BYTES / write_s / 1e6


def _timed_sync(descriptor: int) -> float:
    started = time.perf_counter()
    os.write(descriptor, DURABLE)
    os.fdatasync(descriptor)
    return time.perf_counter() - started
