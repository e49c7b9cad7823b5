"""When cron comes: summer time, absences, and expressions that no calendar can read."""

from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leasehold.schedules.calendar import NoTick, ticks

SPRING, AUTUMN = datetime(2030, 3, 30, 12, tzinfo=UTC), datetime(2030, 10, 26, 12, tzinfo=UTC)
"""Noon before Berlin's clocks go forward from 2 to 3, and back from 3 to 2."""
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def following(cron, moment, count, zone="Europe/Berlin"):
    """The next ticks, each looked up as a daemon does: after the last has come."""
    found = []
    while len(found) < count:
        [moment] = ticks(cron, zone, None, LONG_AGO, moment, 1)
        found.append(moment.strftime("%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "spring", "autumn"),
    [
        ("30 2 * * *", ["31 01:00", "01 00:30"], ["27 00:30", "28 01:30"]),
        ("0 2,3 * * *", ["31 01:00", "01 00:00", "01 01:00"], ["27 00:00", "27 02:00", "28 01:00"]),
        ("30 1 * * *", ["31 00:30", "31 23:30"], ["26 23:30", "28 00:30"]),
        ("*/30 2 * * *", ["01 00:00", "01 00:30"], ["27 00:00", "27 00:30", "27 01:00", "27 01:30", "28 01:00"]),
        ("0 */3 * * *", ["30 14:00", "30 17:00", "30 20:00", "30 23:00", "31 01:00", "31 04:00"],
                        ["26 13:00", "26 16:00", "26 19:00", "26 22:00", "27 02:00", "27 05:00"]),
    ],
)  # fmt: skip
def test_a_fixed_time_comes_once_on_the_days_when_the_clock_changes(cron, spring, autumn):
    assert following(cron, SPRING, len(spring)) == spring
    assert following(cron, AUTUMN, len(autumn)) == autumn


def test_what_is_written_in_the_second_pass_of_an_hour_does_not_come_in_the_first():
    second_pass = datetime(2030, 10, 27, 1, 10, tzinfo=UTC)
    assert following("30 2 * * *", second_pass, 1) == ["28 01:30"]


def test_of_an_absence_only_the_last_ticks_are_named_and_a_year_costs_no_more_than_an_hour():
    now = AUTUMN + timedelta(seconds=30)
    began = perf_counter()
    found = ticks("* * * * *", "Europe/Berlin", now - timedelta(days=365), LONG_AGO, now, 5)
    assert perf_counter() - began < 0.5
    assert found[-6:] == [AUTUMN + timedelta(minutes=n) for n in range(-4, 2)] and len(found) < 10


def test_of_a_short_absence_all_ticks_are_named_from_the_expected_one_on():
    expected, now = AUTUMN - timedelta(hours=2), AUTUMN + timedelta(minutes=1)
    assert ticks("0 * * * *", "UTC", expected, LONG_AGO, now, 5) == [expected + timedelta(hours=n) for n in range(4)]


def test_nothing_comes_before_starts_at_but_at_it():
    assert ticks("0 12 * * *", "UTC", None, AUTUMN, SPRING, 1) == [AUTUMN]


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("0 0 31 2 *", "UTC"), ("61 * * * *", "UTC"), ("*/0 * * * *", "UTC"), ("5-1 * * * *", "UTC"),
        ("1#2#3 * * * L", "UTC"), ("* * L-W * *", "UTC"), ("0 3 * * *", "Europe/Berln"), ("0 3 * * *", "../../etc/passwd"),
        ("0 3 * * *", ""), ("0 0 31 4,6 *", "UTC"),
    ],
)  # fmt: skip
def test_what_no_calendar_can_read_is_said_in_words(cron, zone):
    with pytest.raises(NoTick) as error:
        ticks(cron, zone, None, LONG_AGO, SPRING, 10)
    assert str(error.value)


FIELD = st.text("0123456789*/,-#LWMONJA", min_size=1, max_size=12)


@settings(max_examples=400, deadline=None)
@given(st.lists(FIELD, min_size=5, max_size=5), st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
def test_whatever_is_written_is_a_tick_or_an_error(fields, zone):
    try:
        found = ticks(" ".join(fields), zone, AUTUMN - timedelta(days=2), LONG_AGO, AUTUMN, 10)
    except NoTick:
        return
    assert found == sorted(set(found)) and found[-1] > AUTUMN and all(tick <= AUTUMN for tick in found[:-1])


COMMON = st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "15,45 2 * * 0", "0 2 27 10 *", "0 0 * * *"])


@settings(max_examples=60, deadline=None)
@given(
    COMMON,
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 20_000),
    st.integers(1, 600),
)
def test_looking_late_names_the_ticks_that_looking_often_had_named(cron, zone, offset, minutes):
    begin = AUTUMN - timedelta(days=3) + timedelta(minutes=offset)
    [expected] = ticks(cron, zone, None, LONG_AGO, begin, 1000)
    now = expected + timedelta(minutes=minutes)
    often, moment = [], expected
    while moment <= now:
        often.append(moment)
        [moment] = ticks(cron, zone, None, LONG_AGO, moment, 1)
    assert ticks(cron, zone, expected, LONG_AGO, now, 1000)[-len(often) - 1 :] == [*often, moment]
    assert ticks(cron, zone, expected, LONG_AGO, now, 3)[-min(3, len(often)) - 1 :] == [*often, moment][-4:]
