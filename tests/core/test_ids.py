"""Ids: 16 digits of a prefix that is random per router and process, and a counter."""

from __future__ import annotations

import os
import threading

import pytest

HEX = set("0123456789abcdef")


def test_the_prefix_is_16_hexadecimal_digits(rig):
    prefix = rig.router.id_prefix
    assert len(prefix) == 16
    assert set(prefix) <= HEX
    assert rig.router.id_prefix == prefix


def test_every_router_has_a_prefix_of_its_own(make_rig):
    assert len({make_rig().router.id_prefix for _ in range(50)}) == 50


def test_an_id_is_the_prefix_and_a_counter(rig):
    identities = [rig.router.next_id() for _ in range(1000)]
    assert all(len(identity) == 32 and set(identity) <= HEX for identity in identities)
    assert {identity[:16] for identity in identities} == {rig.router.id_prefix}
    counters = [int(identity[16:], 16) for identity in identities]
    assert counters == sorted(set(counters))


async def test_publishes_and_next_id_share_the_counter(rig):
    mailbox = rig.mailbox("jobs", capacity=1000)
    identities = set()
    for _ in range(300):
        identities.add(await rig.publish("jobs", None))
        identities.add(rig.publish_nowait("jobs", None))
        identities.add(rig.router.next_id())
    assert len(identities) == 900
    assert {identity[:16] for identity in identities} == {rig.router.id_prefix}
    assert mailbox.depth() == 600


def test_threads_never_get_the_same_id(rig):
    found = [[] for _ in range(4)]

    def take(into):
        for _ in range(3000):
            into.append(rig.router.next_id())

    threads = [threading.Thread(target=take, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set().union(*found)) == 12_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_the_prefix_is_new_after_a_fork(rig):
    prefix = rig.router.id_prefix
    rig.router.next_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, f"{rig.router.id_prefix} {rig.router.next_id()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    theirs, identity = os.read(read, 100).decode().split()
    os.close(read)
    assert theirs != prefix
    assert identity.startswith(theirs)
    assert rig.router.id_prefix == prefix
