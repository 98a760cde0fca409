"""The refusals of an import that need no store."""

from pathlib import Path

import pytest

from planaria.actors.controller.catalog import Catalog, encode_catalog
from planaria.actors.controller.cluster_import import ImportFailed, import_catalog
from planaria.actors.controller.storage import CATALOG_NAME
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.topics import TopicConfig


def test_a_topic_that_rejoins_is_not_imported(tmp_path: Path) -> None:
    """A cluster does not finish that."""
    mirror = TopicMirror(mirror="m", state="rejoining")
    decided = Catalog(catalog_id="test").with_topic("T", 1, TopicConfig(), 0, mirror=mirror)
    catalog = Catalog(catalog_id="test").applied(1, decided.changes)
    (tmp_path / CATALOG_NAME).write_bytes(encode_catalog(catalog))
    with pytest.raises(ImportFailed, match="topic 'T' rejoins"):
        import_catalog(str(tmp_path), "etcd://127.0.0.1:1/test", "n0", lambda _: None)
    assert (tmp_path / CATALOG_NAME).exists()
