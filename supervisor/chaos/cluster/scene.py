"""The cluster that the faults of a run strike, and the means to strike it. Data only."""

from random import Random
from typing import NamedTuple

from ...local_cluster import LocalCluster
from .healing import Healing
from .network import Network


class Scene(NamedTuple):
    cluster: LocalCluster
    network: Network
    chance: Random
    healing: Healing
