"""When cron comes: the library's calendar, time zones and summer time. Pure. If it fails, one schedule has an error."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from leasehold.errors import LeaseholdError

MOMENT = timedelta(microseconds=1)


class NoTick(LeaseholdError):
    """The calendar cannot say when this schedule comes."""


def ticks(cron: str, timezone: str, expected: datetime | None, starts_at: datetime, now: datetime, most: int) -> list[datetime]:  # fmt: skip
    """Ticks of `cron` from `expected` on that have come, at least the last `most` of them, and the first that has not.

    Without `expected` only the latter. A fixed time that summer time skips comes when it begins; one that comes twice
    comes once; hours and minutes that begin with * follow the real hours. Raises NoTick.
    """
    try:
        zone: tzinfo = UTC if timezone == "UTC" else ZoneInfo(timezone)
        begin = max(now, starts_at - MOMENT)
        if expected is None:
            return [_first(cron, zone, begin)]
        since = _since(cron, zone, expected, now, max(most, 2)) - MOMENT
        come = list(takewhile(lambda tick: tick <= now, islice(_after(cron, zone, since), 4 * most + 8)))
        return [*come, _first(cron, zone, begin)]
    except NoTick:
        raise
    except Exception as error:  # whatever somebody's expression does to the library is an error of that schedule
        raise NoTick(f"cron {cron!r} in {timezone}: {error or type(error).__name__}") from error


def _first(cron: str, zone: tzinfo, moment: datetime) -> datetime:
    for tick in _after(cron, zone, moment):
        return tick
    raise NoTick(f"cron {cron!r} never comes")


def _after(cron: str, zone: tzinfo, moment: datetime) -> Iterator[datetime]:
    """Ticks later than `moment`, in UTC, where later is later. In the second pass of an hour the library starts in the first."""
    for tick in CronSim(cron, moment.astimezone(zone)):
        instant = tick.astimezone(UTC)
        if instant > moment:
            yield instant


def _since(cron: str, zone: tzinfo, expected: datetime, now: datetime, count: int) -> datetime:
    """`expected`, or about `count` ticks before `now` if that is later: a year of absence costs no more than a day."""
    back = CronSim(cron, now.astimezone(zone), reverse=True)
    for nth, tick in enumerate(back):
        instant = tick.astimezone(UTC)
        if instant <= expected:
            break
        if nth == count:
            return instant
    return expected
