"""`planaria recover`: recover a stopped broker from the loss of its catalog or of a partition.

Holds the lock of the data directory meanwhile. The module named by RECOVERY does the work and is imported by name: this
package does not load actors.
"""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from ..broker_tree import RECOVERY
from ..config import BrokerConfig
from ..data_directory import DataDirectoryError, locked, wait_for_predecessors
from .failures import CommandFailed
from .output import note

TRACES = ("catalog.json", "format.json", "topics")
"""At least one of them is in every data directory, whatever has been lost."""


def recover(
    catalog: Annotated[
        bool, typer.Option("--catalog", help="Rebuild topics and groups in catalog.json from their files.")
    ] = False,
    partition: Annotated[
        str | None,
        typer.Option("--partition", metavar="TOPIC/N", help="Replace a lost partition with an empty one."),
    ] = None,
    from_offset: Annotated[
        int | None,
        typer.Option(
            "--from-offset",
            min=0,
            metavar="OFFSET",
            help="First offset of the new partition, above every offset that the lost one has used.",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIRECTORY",
            envvar="PLANARIA_DATA",
            help="Data directory of the stopped broker.",
        ),
    ] = BrokerConfig().data,
) -> None:
    """Recover the data directory of a stopped broker after the loss of its catalog or a partition.

    Examples:
      planaria recover --catalog --data /var/lib/planaria
      planaria recover --partition ORDERS/0 --from-offset 1000000
    """
    if catalog == (partition is not None):
        raise typer.BadParameter("give either --catalog or --partition")
    if (partition is None) != (from_offset is None):
        raise typer.BadParameter("--partition and --from-offset must be given together")
    topic, _, number = (partition or "").rpartition("/")
    if partition is not None and not (topic and number.isdigit()):
        raise typer.BadParameter(f"{partition!r} is not TOPIC/N", param_hint="--partition")
    path = Path(data)
    if not path.is_dir():
        raise CommandFailed(f"there is no data directory {data}")
    if not any((path / name).exists() for name in TRACES):
        raise CommandFailed(
            f"{data} is not the data directory of a broker: it has none of {', '.join(TRACES)}"
        )
    module = importlib.import_module(RECOVERY)
    try:
        with locked(path):
            if not wait_for_predecessors(path):
                raise CommandFailed(f"actors still run in {data}")
            if catalog:
                lines = module.recover_catalog(data)
            else:
                lines = module.recover_partition(data, topic, int(number), from_offset)
    except DataDirectoryError as error:
        raise CommandFailed(str(error)) from error
    for line in lines:
        note(line)
    note("the catalog is recovered" if catalog else "done")
