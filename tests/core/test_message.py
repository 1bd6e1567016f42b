"""Message: one delivery, immutable to handlers."""

from __future__ import annotations

import gc
import weakref

import pytest

FIELDS = {
    "channel": "jobs",
    "payload": {"a": 1},
    "id": "f" * 32,
    "priority": 7,
    "timestamp_ns": 1_500_000_000_250_000_000,
    "key": "k",
    "correlation_id": "c",
    "reply_to": "_inbox.1",
    "expires_at_ns": 1_500_000_001_500_000_000,
    "content_type": "application/json",
    "attempt": 3,
}


@pytest.fixture
def full(core):
    return core.Message(**FIELDS, headers={"h": "v"}, delivery="lease")


@pytest.fixture
def bare(core):
    return core.Message("jobs", None, id="1")


def test_it_has_what_it_was_built_with(full):
    assert {name: getattr(full, name) for name in FIELDS} == FIELDS
    assert dict(full.headers) == {"h": "v"}
    assert full.delivery == "lease"


def test_what_was_not_given_has_a_default(bare):
    assert (bare.priority, bare.timestamp_ns, bare.timestamp, bare.attempt) == (50, 0, 0.0, 1)
    assert dict(bare.headers) == {}
    for name in ("key", "correlation_id", "reply_to", "expires_at", "expires_at_ns", "content_type", "delivery"):
        assert getattr(bare, name) is None
    assert bare.settled is False
    assert bare.lease_lost is False


def test_the_payload_is_passed_by_reference(core):
    payload = ["a list"]
    assert core.Message("jobs", payload, id="1").payload is payload


def test_seconds_are_floats_of_the_wall_clock(full):
    assert full.timestamp == pytest.approx(1_500_000_000.25, abs=1e-6)
    assert full.expires_at == pytest.approx(1_500_000_001.5, abs=1e-6)


def test_an_id_is_required(core):
    with pytest.raises(TypeError):
        core.Message("jobs", None)


def test_everything_but_channel_and_payload_is_a_keyword(core):
    with pytest.raises(TypeError):
        core.Message("jobs", None, "1")


def test_an_unknown_field_is_refused(core):
    with pytest.raises(TypeError):
        core.Message("jobs", None, id="1", colour="red")


@pytest.mark.parametrize("name", [*FIELDS, "headers", "delivery", "settled", "lease_lost", "timestamp", "expires_at"])
def test_no_attribute_can_be_set(full, name):
    before = getattr(full, name)
    with pytest.raises(AttributeError):
        setattr(full, name, None)
    assert getattr(full, name) == before


def test_no_attribute_can_be_added(full):
    with pytest.raises(AttributeError):
        full.note = "mine"


@pytest.mark.parametrize("headers", [None, {}, {"h": "v"}])
def test_headers_are_read_only(core, headers):
    message = core.Message("jobs", None, id="1", headers=headers)
    assert dict(message.headers) == (headers or {})
    assert message.headers.get("absent") is None
    with pytest.raises(TypeError):
        message.headers["h"] = "w"


def test_later_changes_of_the_publisher_do_not_reach_the_headers(core):
    headers = {"h": "v"}
    message = core.Message("jobs", None, id="1", headers=headers)
    headers["h"] = "w"
    assert message.headers["h"] == "v"


def test_settling_happens_once(bare):
    assert bare._settle() is True
    assert bare.settled is True
    assert bare._settle() is False
    assert bare.settled is True


def test_a_lost_lease_is_seen_and_settles_nothing(bare):
    bare._lose_lease()
    assert bare.lease_lost is True
    assert bare.settled is False
    assert bare._settle() is True
    assert bare.lease_lost is True


def test_a_decoder_sets_the_payload(bare):
    bare._set_payload("decoded")
    assert bare.payload == "decoded"


def test_its_representation_names_id_and_channel(full):
    assert full.id in repr(full)
    assert "jobs" in repr(full)


def test_equality_is_identity(core):
    one, other = (core.Message("jobs", None, id="1") for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


@pytest.fixture
def taken(rig):
    mailbox = rig.mailbox("jobs")
    rig.publish_nowait("jobs", "work", reply_to="_inbox.1")
    return mailbox, mailbox.take()


@pytest.mark.parametrize(
    ("verb", "arguments", "asked"),
    [
        ("ack", (), ()),
        ("nack", (), (None,)),
        ("nack", (1.5,), (1.5,)),
        ("reject", (), ("",)),
        ("reject", ("spoiled",), ("spoiled",)),
        ("release", (), ()),
    ],
)
async def test_verbs_ask_the_settler_and_can_be_awaited(taken, verb, arguments, asked):
    mailbox, message = taken
    assert await getattr(message, verb)(*arguments) is None
    assert mailbox.settler.asked == [(verb, message.id, *asked)]
    assert message.settled is True
    assert mailbox.stats().in_flight == 0


@pytest.mark.parametrize("verb", ["ack", "nack", "reject", "release"])
async def test_what_the_settler_raises_reaches_the_handler(taken, already_settled, verb):
    _, message = taken
    await message.ack()
    with pytest.raises(already_settled):
        await getattr(message, verb)()


async def test_an_answer_settles_nothing(taken):
    mailbox, message = taken
    await message.reply({"ok": True})
    await message.reply("again")
    assert [asked[2] for asked in mailbox.settler.asked] == [{"ok": True}, "again"]
    assert message.settled is False


def test_a_message_of_no_mailbox_has_nobody_to_settle_it(bare):
    with pytest.raises(RuntimeError, match="mailbox"):
        bare.ack()


def test_a_message_frees_its_payload(core):
    class Payload:
        pass

    payload = Payload()
    seen = weakref.ref(payload)
    message = core.Message("jobs", payload, id="1", headers={"h": "v"}, key="k")
    del payload
    assert seen() is not None
    del message
    gc.collect()
    assert seen() is None
