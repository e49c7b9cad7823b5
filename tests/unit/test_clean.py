"""Whatever an agent says can be stored: what Postgres cannot hold is replaced, never refused."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leasehold.events.clean import DEPTH, TEXT_LIMIT, clean, clean_text

TEXT = st.text(st.characters(), max_size=20)  # surrogates and NUL included
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.rule("A13", "A54")
@given(VALUES)
def test_what_is_clean_is_strict_json_in_utf8_without_nul(value):
    text = json.dumps(clean(value), ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    assert "\\u0000" not in text


@given(VALUES)
def test_cleaning_twice_changes_nothing_more(value):
    assert clean(clean(value)) == clean(value)


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -7, 1.5, "", "Grüße \U0001f600", [], {}, {"a": [1, {"b": None}]}]
)
def test_what_can_be_stored_is_left_as_it_is(value):
    assert clean(value) == value
    assert type(clean(value)) is type(value)


@pytest.mark.rule("X26")
@pytest.mark.parametrize(
    ("said", "stored"),
    [("a\x00b", "a\ufffdb"), ("a\ud800b", "a?b"), ("\udfff", "?"), ("\ud83d\ude00", "??"), ("\uffff", "\uffff")],
)
def test_nul_and_lone_surrogates_are_replaced(said, stored):
    assert clean_text(said) == stored


@pytest.mark.parametrize(("number", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_numbers_that_json_has_no_word_for_become_text(number, text):
    assert clean([number]) == [text]


def test_keys_are_cleaned_too():
    assert clean({"a\x00": 1, "\ud800": 2}) == {"a\ufffd": 1, "?": 2}


def test_two_keys_that_become_one_do_not_fail():
    assert set(clean({chr(0xD800): 1, chr(0xD801): 2})) == {"?"}


def test_nesting_is_cut_where_postgres_and_python_still_stand():
    deep = value = []
    for _ in range(5000):
        value.append([])
        value = value[0]
    text = json.dumps(clean(deep))
    assert "[cut: nested too deep]" in text and text.count("[") == DEPTH + 1


def test_what_is_just_within_the_depth_is_kept():
    value = "bottom"
    for _ in range(DEPTH):
        value = [value]
    assert clean(value) == value


@pytest.mark.parametrize("digits", [309, 4000])
def test_huge_numbers_are_kept_in_some_form(digits):
    stored = clean({"n": 10**digits})["n"]
    assert stored == 10**digits or int(stored, 16) == 10**digits
    json.dumps(stored)


@pytest.mark.rule("AW32")
def test_huge_text_is_cut_with_a_note():
    stored = clean_text("x" * (TEXT_LIMIT + 1))
    assert stored.endswith(f"[cut: {TEXT_LIMIT + 1} characters]") and len(stored) < TEXT_LIMIT + 50
    assert clean_text("x" * TEXT_LIMIT) == "x" * TEXT_LIMIT


def test_a_megabyte_is_cleaned_in_a_moment():
    began = time.monotonic()
    clean_text("Grüße" * 200_000)
    assert time.monotonic() - began < 2
