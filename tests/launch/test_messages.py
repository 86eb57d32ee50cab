"""The parser of control messages: what is composed is read back, and nothing else is ever more than refused."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradring.launch import messages
from gradring.launch.messages import LIMIT, MALFORMED, compose, parse

GOOD = [
    {"say": "join", "version": 1, "rank": 3, "size": 4, "generation": 0, "meeting": 7},
    {"say": "how", "rank": 0},
    {"say": "ended", "rank": 1, "signal": 9, "code": None},
    {"say": "world", "size": 2, "generation": 1, "meeting": 0},
    {"say": "peers", "first": 0, "count": 2},
    {"say": "refused", "why": "no"},
    {"say": "who", "meeting": 0},
    {"say": "missing", "rank": None, "count": 0},
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message["say"])
def test_messages_are_read_back(message):
    fields = {key: value for key, value in message.items() if key != "say"}
    assert parse(compose(message["say"], **fields)) == message


def test_every_kind_is_among_these():
    assert {message["say"] for message in GOOD} == set(messages._KINDS)


def test_a_message_has_at_most_so_many_bytes():
    message = compose("how", rank=1)
    assert parse(message.ljust(LIMIT)) == parse(message)
    with pytest.raises(MALFORMED, match=f"at most {LIMIT}"):
        parse(message.ljust(LIMIT + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=LIMIT + 100))
@example(b"[" * LIMIT)
@example(b'{"say":' * 500)
@example(b"9" * LIMIT)
@example(b'{"say":"how","rank":1e999}')
@example(b'{"say":"how","rank":NaN}')
@example(b'{"say":"how","rank":true}')
@example(b'{"say":"how","rank":1,"rank":1}')
@example(b'{"say":"how","rank":1,"more":1}')
@example(b"\xff\xfe{}")
@example(b"\x80\x04\x95cos\nsystem\n")
def test_bytes_are_refused_or_a_message(data):
    try:
        message = parse(data)
    except MALFORMED:
        return
    assert message["say"] in messages._KINDS


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_a_message_with_one_value_changed_is_within_its_bounds_or_refused(message, data):
    field = data.draw(st.sampled_from(sorted(message)))
    value = data.draw(json_values | st.just(-1) | st.just(1 << 40))
    changed = {**message, field: value}
    try:
        read = parse(json.dumps(changed).encode())
    except MALFORMED:
        return
    kind = messages._KINDS[read["say"]]
    assert all(kind[name].holds(read[name]) for name in kind)


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message["say"])
def test_a_missing_field_is_refused(message):
    for field in message:
        with pytest.raises(MALFORMED):
            parse(json.dumps({key: value for key, value in message.items() if key != field}).encode())
