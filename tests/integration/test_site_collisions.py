"""Two linked brokers whose catalogs give them the same number in producer ids."""

from itertools import count
from pathlib import Path

import pytest

from catalog_file import CatalogFile
from patience import wait_until
from planaria import Broker, Client
from planaria.actors.controller.catalog import Catalog
from planaria.actors.log.files import Files
from planaria.transport.producer_ids import SITE_BITS, site_from
from planaria.transport.protocol.data import InitProducer, InitProducerReply
from planaria.transport.protocol.topics import ListTopics, ListTopicsReply
from sites import SETTINGS, Sites, caught_up, fill, records

pytestmark = pytest.mark.processes
PRODUCER_ID_BITS = 53


def known_sites(client: Client) -> dict[str, int]:
    found = client._ask(ListTopics(), ListTopicsReply).sites
    return found if isinstance(found, dict) else {}


def site_of_a_producer(client: Client) -> int:
    return client._ask(InitProducer(), InitProducerReply).producer_id >> PRODUCER_ID_BITS - SITE_BITS


def test_brokers_with_the_same_site_that_mirror_each_other_end_with_different_ones(tmp_path: Path) -> None:
    same = next(
        f"rome {number}" for number in count() if site_from(b"rome %d" % number) == site_from(b"paris")
    )
    for folder, catalog_id in (("paris", "paris"), ("rome", same)):
        catalog = Catalog(catalog_id=catalog_id).with_era(1)
        (tmp_path / folder).mkdir()
        CatalogFile(tmp_path / folder, Files()).save(catalog)
    with Broker(tmp_path / "paris", **SETTINGS) as paris, Broker(tmp_path / "rome", **SETTINGS) as rome:
        forth, back = Sites(paris, rome), Sites(rome, paris)
        assert [site_of_a_producer(each.here) for each in (forth, back)] == [0, 0]
        fill(forth.source, "EAST", 10)
        fill(back.source, "WEST", 10)
        forth.mirror("paris", "EAST")
        back.mirror("rome", "WEST")
        wait_until(caught_up(forth, "EAST"))
        wait_until(caught_up(back, "WEST"))
        clients = (forth.source, forth.here)

        def is_settled() -> bool:
            first, second = map(known_sites, clients)
            return first == second and first.keys() == {"paris", same} and len(set(first.values())) == 2

        wait_until(is_settled)
        sites = known_sites(forth.here)
        # One of them at least had to leave the number that both began with.
        assert {sites["paris"], sites[same]} != {site_from(b"paris")}
        assert [site_of_a_producer(each) for each in clients] == [sites["paris"], sites[same]]
        # A producer of each side has records in the same topic, and neither is taken for the other.
        fill(forth.source, "EAST", 10)
        wait_until(caught_up(forth, "EAST"))
        forth.promote("paris", "EAST")
        fill(forth.here, "EAST", 10)
        assert len(records(forth.here, "EAST")) == 30
        rome.kill("controller")
        assert site_of_a_producer(forth.here) == sites[same]
