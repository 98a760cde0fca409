"""The URL of a cluster's metadata store: `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/CLUSTER`.
Pure.
"""

from ....transport.protocol.errors import OperatorNeeded
from .connections import Endpoint
from .store import DEFAULT_PORT, EtcdConfig
from .wire import Credentials, Tls


def etcd_config(url: str, name: str, tls: Tls | None = None) -> EtcdConfig:
    """Return the configuration in a URL, for the node `name`. Raises OperatorNeeded, one line, without the password."""
    scheme, _, rest = url.partition("://")
    members, _, cluster = rest.rpartition("/")
    user, _, hosts = members.rpartition("@")
    if scheme != "etcd" or not hosts or not cluster:
        raise OperatorNeeded(
            f"{without_password(url)}: a cluster must be of the form etcd://HOST:PORT,HOST:PORT/NAME"
        )
    endpoints = tuple(_endpoint(each, url) for each in hosts.split(","))
    credentials = None
    if user:
        login, _, password = user.partition(":")
        credentials = Credentials(login, password)
    return EtcdConfig(endpoints=endpoints, cluster=cluster, name=name, credentials=credentials, tls=tls)


def without_password(url: str) -> str:
    """Return the URL as it may be shown."""
    scheme, _, rest = url.partition("://")
    credentials, is_there, hosts = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}@{hosts}" if is_there else url


def _endpoint(text: str, url: str) -> Endpoint:
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    try:
        return Endpoint(host.strip("[]"), int(port or DEFAULT_PORT))
    except ValueError as error:
        raise OperatorNeeded(f"{without_password(url)}: {text!r} is not HOST:PORT") from error
