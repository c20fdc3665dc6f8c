"""The algebra of topics and filters, and the tree that must agree with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.brokers.embedded.topics import (
    FilterTree,
    covers,
    is_filter,
    literal_prefix,
    matches,
)

LEVELS = st.sampled_from(["a", "b", "", "$x"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = (
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "", "$x", "+"]), min_size=0, max_size=3),
        st.sampled_from([[], ["#"], ["+"], ["a"]]),
    )
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)


@pytest.mark.parametrize(
    ("filter_", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/+", "a/", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("+/+", "/a", True),
        ("+", "/a", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("A", "a", False),
    ],
)
def test_matches(filter_: str, topic: str, expected: bool) -> None:
    assert matches(filter_, topic) is expected


@pytest.mark.parametrize("text", ["a", "+", "#", "a/+/b", "a/#", "/", "+/+/#"])
def test_well_formed_filters(text: str) -> None:
    assert is_filter(text)


@pytest.mark.parametrize("text", ["", "a+", "#/a", "a/#/b", "a#", "+a/b", "a\0b", "##"])
def test_malformed_filters(text: str) -> None:
    assert not is_filter(text)


@given(FILTERS, FILTERS, TOPICS)
def test_what_covers_receives_all_of_it(outer: str, inner: str, topic: str) -> None:
    if covers(outer, inner) and matches(inner, topic) and not topic.startswith("$"):
        assert matches(outer, topic)


@given(FILTERS)
def test_a_filter_covers_itself(filter_: str) -> None:
    assert covers(filter_, filter_)


@pytest.mark.parametrize(
    ("outer", "inner"), [("a/+", "a/#"), ("a/b", "a/+"), ("a/b", "a"), ("a/+/c", "a/b/#")]
)
def test_a_wider_filter_is_not_covered(outer: str, inner: str) -> None:
    assert not covers(outer, inner)


@given(FILTERS, TOPICS)
def test_received_topics_begin_with_the_literal_prefix(filter_: str, topic: str) -> None:
    if matches(filter_, topic):
        assert topic.startswith(literal_prefix(filter_))


@given(st.sets(FILTERS, max_size=12), st.sets(FILTERS, max_size=6), TOPICS)
def test_the_tree_finds_what_matches(added: set[str], removed: set[str], topic: str) -> None:
    tree = FilterTree()
    for filter_ in added:
        tree.add(filter_)
    for filter_ in removed:
        tree.discard(filter_)
    left = added - removed
    assert sorted(tree.matching(topic)) == sorted(f for f in left if matches(f, topic))


@given(st.sets(FILTERS, max_size=12))
def test_an_emptied_tree_keeps_nothing(filters: set[str]) -> None:
    tree = FilterTree()
    for filter_ in filters:
        tree.add(filter_)
    for filter_ in filters:
        tree.discard(filter_)
    assert vars(tree) == vars(FilterTree())
