"""Sites in producer ids: linked brokers never keep the same one."""

from itertools import count

import pytest

from planaria.actors.controller.catalog import Catalog, decode_catalog, encode_catalog, put
from planaria.actors.controller.deployments import Nodes
from planaria.actors.controller.effects import TurnEnds
from planaria.actors.controller.machine import ControllerMachine
from planaria.actors.controller.sites import MAX_SITES, site_of, sites_of, with_sites
from planaria.actors.metadata.store import Propose
from planaria.transport.machine import Received, Sender
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.mirrors import Mirror, MirrorSpec, MirrorTopic
from planaria.transport.protocol.topics import TopicConfig

MIRROR = Mirror(spec=MirrorSpec(source="tcp://paris:5570", topics=("*",)))


def linked(name: str) -> Catalog:
    return Catalog(catalog_id=name).decided((put("mirrors/m", MIRROR),))


def test_a_broker_without_mirrors_has_none() -> None:
    assert site_of(Catalog(catalog_id="a")) == 0
    assert sites_of(Catalog(catalog_id="a")) == {}
    assert sites_of(linked("a")) == {"a": site_of(linked("a"))}


def test_a_site_that_the_source_has_is_left_to_it_for_good() -> None:
    here = linked("a")
    own = site_of(here)
    found = with_sites(here, {"b": own, "c": own % MAX_SITES + 1})
    assert site_of(found) not in (0, own, own % MAX_SITES + 1)
    assert with_sites(found, {"b": own}) is found
    kept = decode_catalog(encode_catalog(found.with_era(9)), "catalog.json")
    assert (site_of(kept), kept.sites) == (site_of(found), {"b": own, "c": own % MAX_SITES + 1})


def test_a_site_of_its_own_that_the_source_knows_is_kept() -> None:
    here = linked("a")
    assert with_sites(here, {"a": site_of(here)}) is here


def test_two_brokers_that_mirror_each_other_end_with_different_ones() -> None:
    for number in range(200):
        sides = [linked(f"{number}/a"), linked(f"{number}/b")]
        for _ in range(20):
            known = [sites_of(each) for each in sides]
            sides = [with_sites(sides[0], known[1]), with_sites(sides[1], known[0])]
        assert site_of(sides[0]) != site_of(sides[1])


def test_without_a_free_one_it_is_refused() -> None:
    taken = {f"broker {number}": number for number in range(1, MAX_SITES + 1)}
    with pytest.raises(ProtocolError, match="31 brokers") as refused:
        with_sites(linked("a"), taken)
    assert refused.value.code == ErrorCode.LIMIT_REACHED
    assert site_of(with_sites(linked("a"), {k: v for k, v in taken.items() if v != 31})) == 31


def test_a_mirror_names_the_sites_of_its_source_before_it_copies() -> None:
    own = site_of(linked("a"))
    durable = Catalog(catalog_id="a").applied(1, linked("a").changes)
    machine = ControllerMachine(durable, numbers=count(1), nodes=Nodes)
    request = MirrorTopic(
        mirror="m", topic="T", topic_id="t1", partitions=1, config=TopicConfig(), sites={"b": own}
    )
    effects = machine.handle(Received(Sender((b"mirror",), 1), request), 0)
    [proposal] = [each for each in [*effects, *machine.handle(TurnEnds(), 0)] if isinstance(each, Propose)]
    decided = durable.applied(2, proposal.changes)
    assert decided.topics["T"].mirror == TopicMirror(mirror="m")
    assert site_of(decided) not in (0, own)
