"""Addresses: their text is read in one place, and they serve as texts and as keys everywhere else."""

import copy
import json
import pickle

import pytest

from planaria.transport.addresses import (
    CONTROLLER,
    GATEWAY,
    SUPERVISOR,
    Address,
    TopicPartition,
    coordinator_address,
    partition_address,
    scheduler_address,
    subscriber_address,
    transactions_address,
)
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.protocol.control import PeersAsleep, PeerUp, StopChild
from planaria.transport.protocol.errors import ErrorCode, ProtocolError

ALL = (
    (CONTROLLER, "controller"),
    (SUPERVISOR, "supervisor"),
    (GATEWAY, "gateway"),
    (Address("gateway", number=0), "gateway/0"),
    (partition_address("ORDERS", 12), "partition/ORDERS/12"),
    (coordinator_address("7"), "coordinator/7"),
    (Address("link", "b"), "link/b"),
    (scheduler_address(3), "scheduler/3"),
    (transactions_address(0), "transactions/0"),
    (subscriber_address("billing", 2), "subscriber/billing/2"),
)
NOT_ADDRESSES = (
    "",
    "/",
    "/0",
    "partition",
    "partition/",
    "partition/ORDERS",
    "partition/ORDERS/",
    "partition/ORDERS/-1",
    "partition/ORDERS/01",
    "partition/ORDERS/x",
    "partition/ORDERS/\u0663",
    "partition/0",
    "subscriber/1",
    "coordinator",
    "coordinator/",
    "scheduler",
    "scheduler/x",
    "scheduler/a/0",
    "gateway/",
)


@pytest.mark.parametrize(("address", "text"), ALL)
def test_an_address_is_read_back_from_its_text(address: Address, text: str) -> None:
    read = Address.parse(text)
    assert str(read) == str(address) == text
    assert (read.kind, read.name, read.number) == (address.kind, address.name, address.number)
    assert {address: "found"}[read] == "found"


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_a_text_that_names_no_actor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the address"):
        Address.parse(text)


def test_the_parts_belong_to_the_kind() -> None:
    partition = partition_address("T", 3)
    assert (partition.topic, partition.topic_partition, partition.group) == (
        "T",
        TopicPartition("T", 3),
        None,
    )
    for member in (coordinator_address("g"), subscriber_address("g", 1)):
        assert (member.topic, member.topic_partition, member.group) == (None, None, "g")


def test_an_address_does_not_change() -> None:
    with pytest.raises(AttributeError):
        partition_address("T", 3).number = 4  # type: ignore[misc]


@pytest.mark.parametrize("address", [each for each, _ in ALL])
def test_copies_and_pickles_keep_the_parts(address: Address) -> None:
    for made in (copy.deepcopy(address), pickle.loads(pickle.dumps(address))):
        assert (made, made.kind, made.name, made.number) == (
            address,
            address.kind,
            address.name,
            address.number,
        )


@pytest.mark.parametrize("as_json", [False, True])
def test_it_travels_as_its_text_and_arrives_as_an_address(as_json: bool) -> None:
    decoder = RequestDecoder([PeerUp, PeersAsleep])
    address = partition_address("T", 3)
    up = decoder.decode(encode_header(PeerUp(address=address, incarnation=1, endpoint=None), as_json))
    asleep = decoder.decode(encode_header(PeersAsleep(addresses=[address]), as_json))
    assert isinstance(up, PeerUp)
    assert isinstance(asleep, PeersAsleep)
    assert up.address.topic_partition == asleep.addresses[0].topic_partition == TopicPartition("T", 3)
    header = encode_header(PeerUp(address=address, incarnation=1, endpoint=None), as_json=True)
    assert json.loads(header)["address"] == "partition/T/3"


@pytest.mark.parametrize("address", [5, "partition/T", None])
def test_a_message_without_an_address_at_its_place_is_refused_by_field(address: object) -> None:
    header = json.dumps({"op": "stop_child", "address": address}).encode()
    with pytest.raises(ProtocolError, match=r"\$\.address") as refused:
        RequestDecoder([StopChild]).decode(header)
    assert refused.value.code == ErrorCode.INVALID_REQUEST
