"""What an inspection says about one thing."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.core.findings import Level


class Check(StrEnum):
    """What was looked at."""

    FILE = "file"
    EXPIRY = "expiry"
    CHAIN = "chain"
    KEY = "key"
    ANCHORS = "anchors"
    CRL_EXPIRY = "crl_expiry"
    CRL_SIGNATURE = "crl_signature"


@dataclass(frozen=True)
class Finding:
    """One file of a home that was checked; `remedy` says what to do unless it's fine."""

    level: Level
    check: Check
    path: Path
    message: str
    remedy: str = ""
    code: AuthorityCode | None = None
    """The exact failure, where a file couldn't be read or a key couldn't be used."""


def failed(check: Check, path: Path, error: AuthorityError) -> Finding:
    """What went wrong in reading, as a finding."""
    return Finding(Level.ERROR, check, path, error.message, error.remedy, error.code)


@dataclass(frozen=True)
class Period:
    """From when until when something is in force, and how long before its end to warn."""

    begin: datetime
    end: datetime
    margin: timedelta


def check_period(
    check: Check, path: Path, what: str, period: Period, now: datetime, remedy: str
) -> Finding:
    """Whether `what` is in force at `now`, and stays so for the margin."""
    end = f"{period.end:%Y-%m-%d %H:%M} UTC"
    if now < period.begin:
        level, message = Level.ERROR, f"{what} isn't in force before {period.begin:%Y-%m-%d %H:%M}"
        remedy = "check this machine's clock"
    elif now >= period.end:
        level, message = Level.ERROR, f"{what} expired at {end}"
    elif period.end - now < period.margin:
        level, message = Level.WARNING, f"{what} expires at {end}"
    else:
        level, message, remedy = Level.OK, f"{what} is in force until {end}", ""
    return Finding(level, check, path, message, remedy)
