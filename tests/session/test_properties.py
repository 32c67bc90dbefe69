"""The properties of a connection, by dialect."""

from __future__ import annotations

import pytest

from marketfeed.session.properties import DEFAULTS, Properties
from marketfeed.session.requests import Property
from marketfeed.wire.dialects import Dialect, Shape
from marketfeed.wire.messages import ErrorCode, RequestError


@pytest.mark.parametrize("dialect", Dialect)
def test_in_the_beginning(dialect: Dialect) -> None:
    """Envelopes and events by the path, nothing else; everybody shares them."""
    properties = DEFAULTS[dialect]
    assert properties is DEFAULTS[dialect]
    is_house = dialect is Dialect.HOUSE
    assert [properties.get(name) for name in Property] == [dialect is not Dialect.RAW, False, False, is_house]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("name", [Property.OFFSETS, Property.SNAPSHOT])
def test_one_is_set(dialect: Dialect, name: Property) -> None:
    """That one and no other, back and forth; the defaults stay what they are."""
    before = DEFAULTS[dialect]
    after = before.changed(name, True)
    assert [other for other in Property if before.get(other) != after.get(other)] == [name]
    assert after.changed(name, False) == before
    assert not DEFAULTS[dialect].get(name)


@pytest.mark.parametrize("dialect", Dialect)
def test_events_are_heard_or_not_on_every_path(dialect: Dialect) -> None:
    """Whatever the beginning; the shape of publications has nothing to do with it."""
    for value in (True, False):
        after = DEFAULTS[dialect].changed(Property.EVENTS, value)
        assert after.get(Property.EVENTS) is value
        assert after.shape is DEFAULTS[dialect].shape


def test_combined_changes_the_dialect() -> None:
    """And leaves the others alone."""
    raw = Properties(Dialect.RAW, offsets=True, snapshot=True)
    combined = raw.changed(Property.COMBINED, True)
    assert combined == Properties(Dialect.COMBINED, offsets=True, snapshot=True)
    assert combined.changed(Property.COMBINED, False) == raw


@pytest.mark.parametrize(
    ("dialect", "shape"), [(Dialect.HOUSE, Shape.OFFSET), (Dialect.COMBINED, Shape.OFFSET), (Dialect.RAW, Shape.DATA)]
)
def test_offsets_stand_in_envelopes(dialect: Dialect, shape: Shape) -> None:
    """Bare data have no place for them."""
    assert DEFAULTS[dialect].changed(Property.OFFSETS, True).shape is shape
    assert DEFAULTS[dialect].shape is (Shape.DATA if dialect is Dialect.RAW else Shape.ENVELOPE)


@pytest.mark.parametrize("name", Property)
@pytest.mark.parametrize("value", [1, 0, "true", None, [], {}])
def test_the_values_are_true_and_false(name: Property, value: object) -> None:
    """Anything else is named."""
    with pytest.raises(RequestError) as caught:
        DEFAULTS[Dialect.RAW].changed(name, value)
    assert caught.value.code is ErrorCode.PROPERTY_VALUE
    assert caught.value.message == f"the property {name.value} must be true or false"


@pytest.mark.parametrize("value", [True, False, "x"])
def test_combined_cannot_be_set_on_the_house_path(value: object) -> None:
    """Whatever the value."""
    with pytest.raises(RequestError) as caught:
        DEFAULTS[Dialect.HOUSE].changed(Property.COMBINED, value)
    assert caught.value.code is ErrorCode.PROPERTY_NAME
