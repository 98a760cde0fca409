"""Rule: the list of impure files is closed. Every other file of the package decides and does not perform: it
imports no clock, socket, thread, file or random number, opens nothing, and imports no impure file.

To add an impure file, add a line with its reason to IMPURE; a line whose file is gone or became pure fails.
"""

import ast
from collections.abc import Iterable

import pytest

from source_tree import FOLDERS, PACKAGE, Source, package_sources

# File, or folder with a slash at its end -> why it has to touch the world.
IMPURE: dict[str, str] = {
    "actors/backup/image.py": "links the files of a data directory",
    "actors/backup/manifest.py": "reads the list of a backup",
    "actors/backup/restore.py": "copies a backup",
    "actors/backup/store.py": "copies an image",
    "actors/backup/verify.py": "reads a data directory whole",
    "actors/console/process.py": "runs the console as a process",
    "actors/controller/clustered_process.py": "the controller's process on a node of a cluster",
    "actors/controller/process.py": "the controller's process",
    "actors/controller/deployed_output.py": "reads the output of the workers of deployments",
    "actors/controller/folders.py": "makes, compares and removes the topics' folders",
    "actors/controller/cluster_import.py": "writes the catalog of a stopped broker into a cluster's store",
    "actors/controller/recovery.py": "rebuilds the catalog from the folders of a stopped broker",
    "actors/controller/storage.py": "holds the catalog's store and the topics' folders",
    "actors/coordinator/process.py": "the coordinator's process: its snapshot file",
    "actors/door/certificate.py": "reads the certificate",
    "actors/door/guest.py": "the sockets of one connection",
    "actors/door/process.py": "the TLS door's process",
    "actors/gateway/process.py": "the gateway's process, and the thread that compares passwords",
    "actors/http/process.py": "the HTTP actor's process: its sockets",
    "actors/journal/process.py": "the process of every actor that keeps a journal",
    "actors/journal/sleep_mark.py": "marks an actor that sleeps",
    "actors/journal/snapshot_file.py": "reads and replaces the snapshot of an actor's state",
    "actors/link/process.py": "the link's process",
    "actors/mirror/process.py": "a mirror's process, with the client of its source",
    "actors/log/checkpoint.py": "reads and replaces the checkpoint",
    "actors/log/cleaned.py": "reads and replaces the record of compaction, carries out its swaps",
    "actors/log/checkpointing.py": "writes checkpoints and producer snapshots",
    "actors/log/compaction.py": "steps a pass of compaction",
    "actors/log/compaction_output.py": "writes a segment aside",
    "actors/log/compaction_pass.py": "reads and rewrites segments",
    "actors/log/compaction_plan.py": "weighs open segments; touches no file itself",
    "actors/log/compaction_state.py": "commits the steps of compaction",
    "actors/log/epoch_search.py": "reads the epochs of open segments",
    "actors/log/files.py": "the system calls of the log, with every result checked",
    "actors/log/index.py": "reads and writes index files",
    "actors/log/labels.py": "reads the labels of folders",
    "actors/log/lock.py": "holds the flock on a directory",
    "actors/log/log.py": "the log over its files",
    "actors/log/readable.py": "reads the log",
    "actors/log/reading.py": "reads segments",
    "actors/log/recovery.py": "reads the log's folder, cuts torn tails",
    "actors/log/retention.py": "weighs open segments; touches no file itself",
    "actors/log/scan.py": "walks the batches of an open file",
    "actors/log/segment.py": "reads and appends a segment's file",
    "actors/log/segment_reading.py": "reads a segment's file",
    "actors/log/segments.py": "closes the segments that are read least",
    "actors/log/snapshots.py": "reads and writes producer snapshots",
    "actors/log/start.py": "renames the file that says where the log begins",
    "actors/log/tail.py": "checks and cuts the last segment",
    "actors/log/timestamps.py": "reads an open segment",
    "actors/log/truncation.py": "cuts the log's files",
    "actors/log/verification.py": "reads a segment whole",
    "actors/metadata/etcd/connections.py": "threads with HTTP connections to etcd, and a pipe that wakes the loop",
    "actors/metadata/etcd/url.py": "names the impure store's configuration; touches nothing itself",
    "actors/metadata/etcd/store.py": "performs the etcd machine's effects, waits at the start",
    "actors/metadata/store_file.py": "reads and replaces the store's file",
    "actors/partition/log_config.py": "makes a value for the log; touches no file itself",
    "actors/partition/process.py": "the partition's process",
    "actors/scheduler/process.py": "the scheduler's process: its snapshot file",
    "actors/subscriber/application_report.py": "imports an application, in a process of its own",
    "actors/subscriber/coroutines.py": "runs an event loop in a thread",
    "actors/subscriber/committing.py": "commits by the client and waits",
    "actors/subscriber/feed.py": "a task that awaits the group's consumer",
    "actors/subscriber/member.py": "a consumer that is awaited",
    "actors/subscriber/tasks.py": "runs tasks on the actor's loop",
    "actors/subscriber/resource_monitor.py": "a thread that looks at the process it is in",
    "actors/subscriber/flight_recorder.py": "maps the recorder's file",
    "actors/subscriber/dead_letter_publisher.py": "publishes dead letters",
    "actors/subscriber/process.py": "the subscriber's process",
    "actors/subscriber/rehearsal.py": "the process in which dead letters are tried",
    "actors/subscriber/threads.py": "threads",
    "actors/subscriber/worker.py": "runs the handler on its thread",
    "actors/transactions/process.py": "the process of a coordinator of transactions",
    "supervisor/__main__.py": "the supervisor's process",
    "supervisor/admin_link.py": "a socket to the supervisor",
    "supervisor/surroundings.py": "sets a child's variables and redirects its output",
    "supervisor/worker/": "runs processes of an application, reads its files, waits for signals",
    "supervisor/bench/": "runs brokers, measures time",
    "supervisor/broker.py": "the embedded broker: a process, a client and a thread",
    "supervisor/chaos/": "runs, kills and freezes processes, measures time",
    "supervisor/child.py": "runs in a child, before its actor",
    "supervisor/console/": "a server of pages, and a client of the broker; tree_view.py and guard.py touch nothing",
    "supervisor/cli/": "reads terminals and files, prints",
    "supervisor/security.py": "makes and finds the keys in the data directory",
    "supervisor/config.py": "reads planaria.toml and the environment",
    "supervisor/data_directory.py": "locks the data directory, counts starts in it",
    "supervisor/cpu_latency.py": "writes to the device of the kernel",
    "supervisor/freezing.py": "stops and continues processes",
    "supervisor/deaths.py": "watches processes by pidfd",
    "supervisor/demo/": "runs and kills processes, prints",
    "supervisor/hosted.py": "the program's threads install handlers",
    "supervisor/keeper.py": "a thread that watches the supervisor's process",
    "supervisor/launch.py": "starts the supervisor, holds its pipes",
    "supervisor/forking.py": "starts a process of the fork server",
    "supervisor/launcher.py": "starts and kills children",
    "supervisor/launches.py": "watches the answers of the fork server",
    "supervisor/free_ports.py": "claims ports",
    "supervisor/local_cluster.py": "runs and kills etcd and nodes",
    "supervisor/logs.py": "reads the time that log lines carry",
    "supervisor/measurement.py": "asks the system for its limits",
    "supervisor/node.py": "makes and reads the identity of a node",
    "supervisor/process.py": "the supervisor's process",
    "supervisor/rehearsal.py": "starts and kills the processes in which dead letters are tried",
    "supervisor/run_directory.py": "makes and removes the run directory",
    "supervisor/standard_streams.py": "opens descriptors that are closed",
    "supervisor/status_reports.py": "reads each process's memory from /proc",
    "transport/processes.py": "reads a process's memory from /proc",
    "transport/aio/": "the client's shell for event loops",
    "transport/calls/performer.py": "holds the socket that calls go out by",
    "transport/client/share_member.py": "calls a machine from two threads, under its lock",
    "transport/client/assigned_partitions.py": "the common part of the consumers for threads and tasks",
    "transport/client/batches.py": "the lock of a producer's batches",
    "transport/client/tls_dialer.py": "threads with TLS connections",
    "transport/keep_alive.py": "sets options of sockets",
    "transport/security/self_test.py": "connects to the actor's own socket",
    "transport/security/relay.py": "copies bytes between two sockets",
    "transport/security/relay_endpoint.py": "writes and reads a file of the run directory",
    "transport/security/tls.py": "reads certificates and keys",
    "transport/client/network_thread.py": "the client's thread and socket",
    "transport/client/accumulator.py": "hands records from the caller's thread to the client's",
    "transport/client/placement.py": "opens batches for the caller's thread, which may wait",
    "transport/client/destinations.py": "asks by the network and waits, chooses at random",
    "transport/client/producer_batch.py": "what a program's thread waits for",
    "transport/client/gate.py": "what a program's thread waits at",
    "transport/client/access.py": "makes producers and consumers of the network",
    "transport/client/admin.py": "asks by the network and waits",
    "transport/client/group_admin.py": "asks by the network and waits",
    "transport/client/admin_requests.py": "asks by the network and waits",
    "transport/client/cluster_admin.py": "asks by the network and waits",
    "transport/client/security_admin.py": "asks by the network and waits; makes tokens",
    "transport/client/mirror_admin.py": "requests of operators about mirrors",
    "transport/client/topic_admin.py": "asks by the network and waits; reads a program's datetimes",
    "transport/client/client.py": "owns the network thread",
    "transport/client/consumer.py": "the program's thread waits for the network's",
    "transport/client/dead_letters.py": "asks the broker for letters and waits",
    "transport/client/dispatch.py": "sends and receives on the client's socket",
    "transport/client/offset_queries.py": "asks by the network and waits",
    "transport/client/turn_taking.py": "threads that take turns at the socket",
    "transport/client/network.py": "the client's socket, its thread and its clock",
    "transport/client/probes.py": "asks the system's resolver, reads from a connection, in threads",
    "transport/client/shield.py": "the program's signal handlers",
    "transport/client/until_signal.py": "the program's signal handlers",
    "transport/client/silence.py": "asks the kernel about a connection",
    "transport/client/exit_flush.py": "the end of the interpreter",
    "transport/client/producer_bridge.py": "holds the accumulator's batches, which threads wait for",
    "transport/forks.py": "runs in forked processes",
    "transport/security/node_keys.py": "checks keys in a thread",
    "transport/client/producer.py": "the program's thread waits for the network's",
    "transport/client/share_consumer.py": "the program's thread waits for the network's",
    "transport/times.py": "reads the times that people type",
    "transport/client/reading.py": "asks for offsets by the network, reads the clock, waits",
    "transport/client/configuration.py": "reads the file of a client's configuration",
    "transport/client/table.py": "a thread of its own",
    "transport/client/schedule.py": "reads a program's datetimes, makes ids at random",
    "transport/client/publish_arguments.py": "reads a program's datetimes, makes ids at random",
    "transport/client/unawaited.py": "writes the log",
    "transport/client/transactional.py": "the program's thread waits for the network's",
    "transport/client/redrive.py": "publishes letters, waits, keeps a pace",
    "transport/context.py": "reads a program's datetimes",
    "transport/security/broker_keys.py": "reads the broker's key file",
    "transport/security/client_credentials.py": "reads key files",
    "transport/security/new_credentials.py": "makes random secrets",
    "transport/security/curve.py": "sets the keys of sockets, answers handshakes",
    "transport/security/key_files.py": "reads and writes key files",
    "transport/clock.py": "reads the clock, once for everybody",
    "transport/loop.py": "polls sockets and performs effects",
    "transport/poller.py": "waits for sockets",
    "transport/replies.py": "sends replies on the loop's socket",
    "transport/door.py": "renames the file of a socket, asks for the limit of descriptors",
    "transport/server_side.py": "receives requests on the server socket",
    "transport/server_connections.py": "reads the monitor of the server socket",
    "transport/sockets.py": "makes sockets",
    "transport/event_queue.py": "events that wake another thread",
    "transport/wake_pipe.py": "the pipe that wakes a thread",
}

FORBIDDEN_MODULES = {
    "asyncio", "concurrent", "fcntl", "glob", "mmap", "multiprocessing", "os", "pathlib",
    "random", "resource", "secrets", "select", "selectors", "shutil", "signal", "socket", "subprocess",
    "tempfile", "threading", "time", "uuid", "zmq",
}  # fmt: skip
PURE_NAMES = {"os.PathLike"}
"""Interfaces in modules that perform IO otherwise."""
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}
# A datetime is a value; these read the clock or the machine's time zone.
CLOCK_READERS = {"now", "today", "utcnow", "astimezone", "fromtimestamp", "timestamp", "mktime"}


def faults(source: Source, impure_modules: set[str]) -> list[str]:
    found = []
    for item in source.imports:
        full = f"{item.module}.{item.name}"
        if full in PURE_NAMES:
            continue
        if item.top in FORBIDDEN_MODULES:
            found.append(f"{source.path}:{item.line}: a pure file imports {item.module}")
        elif not item.is_for_types_only and not impure_modules.isdisjoint((item.module, full)):
            found.append(f"{source.path}:{item.line}: a pure file imports an impure one: {full}")
    found += [
        f"{source.path}:{node.lineno}: a pure file calls {node.func.id}()"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
    ]
    if any(item.top == "datetime" for item in source.imports):
        found += [
            f"{source.path}:{node.lineno}: a pure file calls {node.func.attr}()"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOCK_READERS
        ]
    return found


def is_listed(source: Source, listed: Iterable[str]) -> bool:
    return any(
        source.path == entry or (entry[-1] == "/" and source.path.startswith(entry)) for entry in listed
    )


def governed() -> list[Source]:
    """The root's own files only re-export names; an __init__.py only re-exports its folder's."""
    return [source for source in package_sources() if source.folder in FOLDERS]


def impure_modules() -> set[str]:
    return {
        source.module
        for source in governed()
        if is_listed(source, IMPURE) and not source.path.endswith("/__init__.py")
    }


def test_every_file_not_listed_is_pure() -> None:
    modules = impure_modules()
    found = [
        fault
        for source in governed()
        if not is_listed(source, IMPURE)
        for fault in faults(source, set() if source.path.endswith("/__init__.py") else modules)
    ]
    assert not found, "\n".join(found)


def test_every_listed_file_exists_and_is_impure() -> None:
    modules = impure_modules()
    stale = [
        entry
        for entry in IMPURE
        if not any(faults(source, modules) for source in governed() if is_listed(source, [entry]))
    ]
    assert stale == []


def test_machines_are_never_listed() -> None:
    assert [entry for entry in IMPURE if entry.endswith(("machine.py", "machines.py"))] == []


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "import os.path",
        "from time import monotonic",
        "import zmq.asyncio",
        "def f():\n    import random",
        "with open('x') as file: pass",
        "from .process import run",
        "from . import process",
        "from ..partition.process import run",
        "from datetime import datetime\ndef f(): return datetime.now()",
        "import datetime\ndef f(time): return time.astimezone()",
    ],
)
def test_rule_sees(text: str) -> None:
    source = Source("actors/partition/machine.py", text)
    assert len(faults(source, {f"{PACKAGE}.actors.partition.process"})) == 1


def test_rule_allows() -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "import msgspec, zlib\n"
        "from datetime import datetime, timedelta\nfrom os import PathLike\n"
        "from ...transport.batch import RecordBatch\n"
        "if TYPE_CHECKING:\n    from .process import Shell\n"
        "def f(file): return file.open()\n"
    )
    assert faults(Source("actors/partition/machine.py", text), {f"{PACKAGE}.actors.partition.process"}) == []
