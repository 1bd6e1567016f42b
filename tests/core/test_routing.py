"""Router: which mailboxes a channel reaches."""

from __future__ import annotations

import pytest


def reached(rig, patterns, channel):
    """Which of the patterns a channel matches."""
    mailboxes = {pattern: rig.mailbox(pattern) for pattern in patterns}
    found = rig.router.match(channel)
    names = {mailbox: pattern for pattern, mailbox in mailboxes.items()}
    return {names[mailbox] for mailbox in found}


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a", ["a"], ["b", "a.b", "A", "aa"]),
        ("a.b", ["a.b"], ["a", "a.c", "a.b.c", "x.a.b"]),
        ("*", ["a", "b"], ["a.b"]),
        ("a.*", ["a.b", "a.c", "a._x"], ["a", "a.b.c", "b.a"]),
        ("*.b", ["a.b", "c.b"], ["b", "a.b.c"]),
        ("a.*.c", ["a.b.c"], ["a.c", "a.b.b.c", "a.b.d"]),
        (">", ["a", "a.b", "a.b.c"], []),
        ("a.>", ["a.b", "a.b.c", "a._x.y"], ["a", "b.a"]),
        ("*.>", ["a.b", "a.b.c"], ["a"]),
        ("a.*.>", ["a.b.c", "a.b.c.d"], ["a.b"]),
    ],
)
def test_a_star_is_one_token_and_a_greater_sign_the_rest(rig, pattern, yes, no):
    mailbox = rig.mailbox(pattern)
    for channel in yes:
        assert rig.router.match(channel) == [mailbox]
    for channel in no:
        assert rig.router.match(channel) == []


@pytest.mark.parametrize("channel", ["_dlq.jobs", "_inbox.1", "_x"])
def test_a_leading_wildcard_never_matches_a_reserved_channel(rig, channel):
    exact = {channel, "_dlq.*", "_dlq.>", "_inbox.*"}
    found = reached(rig, [">", "*", "*.*", "*.>", "*.jobs", *sorted(exact)], channel)
    assert channel in found
    assert found <= exact


def test_only_the_first_token_is_reserved(rig):
    mailbox = rig.mailbox("a.*")
    assert rig.router.match("a._dlq") == [mailbox]


@pytest.mark.parametrize("pattern", ["", ".", "a.", ".a", "a..b", "a*", "*a.b", "a.b>", ">.a", "a.>.b", ">.>", "**"])
def test_a_malformed_pattern_is_refused_by_name(rig, pattern):
    mailbox = rig.mailbox()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        rig.router.attach(pattern, mailbox)
    assert repr(pattern).strip("'") in str(caught.value)


def test_mailboxes_are_found_in_the_order_they_were_made_and_once(rig):
    third, first, second = (rig.mailbox() for _ in range(3))
    for mailbox in (first, second, third):
        rig.router.attach("a.>", mailbox)
        rig.router.attach("a.b", mailbox)
        rig.router.attach("a.b", mailbox)
    assert rig.router.match("a.b") == [third, first, second]


def test_a_wildcard_in_a_channel_s_name_is_a_letter_like_any_other(rig):
    exact = rig.mailbox("a.b")
    assert rig.router.match("a.*") == []
    assert rig.router.match("a.b") == [exact]


def test_of_one_group_only_the_most_specific_pattern_gets_a_message(rig):
    names = ["a.b.c", "a.b.*", "a.b.>", "a.*.c", "a.>", "*.b.c", ">"]
    mailboxes = {pattern: rig.mailbox(pattern, group="g") for pattern in names}
    for pattern in names:
        assert rig.router.match("a.b.c") == [mailboxes[pattern]]
        rig.router.detach(pattern, mailboxes[pattern])
    assert rig.router.match("a.b.c") == []


def test_patterns_are_compared_token_by_token_from_the_left(rig):
    left = rig.mailbox("a.>", group="g")
    rig.mailbox("*.b.c", group="g")
    assert rig.router.match("a.b.c") == [left]


def test_groups_and_those_without_one_do_not_shadow_each_other(rig):
    exact = rig.mailbox("a.b", group="g")
    other = rig.mailbox("a.*", group="h")
    rig.mailbox("a.*", group="g")
    none = rig.mailbox("a.>")
    also_none = rig.mailbox(">")
    assert rig.router.match("a.b") == [exact, other, none, also_none]


def test_a_mailbox_may_serve_several_patterns_of_its_group(rig):
    mailbox = rig.mailbox("a.b", "a.*", "c", group="g")
    for channel in ("a.b", "a.x", "c"):
        assert rig.router.match(channel) == [mailbox]


def test_detach_ends_only_that_pattern_of_that_mailbox(rig):
    one, other = rig.mailbox("a", "b"), rig.mailbox("a")
    rig.router.detach("a", one)
    assert rig.router.match("a") == [other]
    assert rig.router.match("b") == [one]


def test_detaching_what_is_not_attached_is_harmless(rig):
    one, other = rig.mailbox("a"), rig.mailbox()
    rig.router.detach("a", other)
    rig.router.detach("b.*", one)
    assert rig.router.match("a") == [one]


@pytest.mark.parametrize("pattern", ["jobs", "*", ">"])
async def test_a_publish_sees_what_was_attached_or_detached_just_before(rig, pattern, drain):
    always = rig.mailbox("jobs")
    await rig.publish("jobs", 1)
    late = rig.mailbox(pattern)
    await rig.publish("jobs", 2)
    rig.publish_nowait("jobs", 3)
    rig.router.detach(pattern, late)
    await rig.publish("jobs", 4)
    assert drain(always) == [1, 2, 3, 4]
    assert drain(late) == [2, 3]


def test_thousands_of_patterns_are_found_quickly(rig):
    mailbox = rig.mailbox()
    for number in range(5000):
        rig.router.attach(f"a.{number}.*", mailbox)
        rig.router.attach(f"b.*.{number}", mailbox)
    last = rig.mailbox("a.4999.>")
    assert rig.router.match("a.4999.x") == [mailbox, last]
    for number in range(5000):
        rig.router.detach(f"a.{number}.*", mailbox)
    assert rig.router.match("a.4999.x") == [last]
    assert rig.router.match("b.x.17") == [mailbox]


def test_an_attached_mailbox_is_kept_alive_by_the_router(rig):
    import gc

    rig.mailbox("jobs", capacity=7)
    gc.collect()
    assert [mailbox.capacity for mailbox in rig.router.match("jobs")] == [7]
