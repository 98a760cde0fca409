"""The URL of a cluster's metadata store: `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/CLUSTER`.
Pure.
"""

from ....transport.protocol.errors import OperatorNeeded
from .connections import Endpoint
from .store import DEFAULT_PORT, EtcdConfig
from .wire import Credentials


def etcd_config(url: str, name: str) -> EtcdConfig:
    """Return the configuration in a URL, for the node `name`. Raises OperatorNeeded, one line."""
    scheme, _, rest = url.partition("://")
    members, _, cluster = rest.rpartition("/")
    user, _, hosts = members.rpartition("@")
    if scheme != "etcd" or not hosts or not cluster:
        raise OperatorNeeded(f"{url}: a cluster is named by etcd://HOST:PORT,HOST:PORT/NAME")
    endpoints = tuple(_endpoint(each, url) for each in hosts.split(","))
    credentials = None
    if user:
        login, _, password = user.partition(":")
        credentials = Credentials(login, password)
    return EtcdConfig(endpoints=endpoints, cluster=cluster, name=name, credentials=credentials)


def _endpoint(text: str, url: str) -> Endpoint:
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    try:
        return Endpoint(host.strip("[]"), int(port or DEFAULT_PORT))
    except ValueError as error:
        raise OperatorNeeded(f"{url}: {text!r} is no HOST:PORT") from error
