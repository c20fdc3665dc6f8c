"""The settings of a zone on Mosquitto, and the configuration that Mosquitto is shipped with."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker.operating.initialise import Choices, ZoneChoice, settings_text
from broker.operating.installation import read_settings
from broker.protocol.zones import Zone
from broker.services.problems import Problem
from broker.settings import STOCK_SERVICE_PORTS, BrokerKind, Settings, ZoneSettings

STOCK = Path(__file__).resolve().parents[2] / "mosquitto"
MADE = Choices(
    hosts=["mqtt.example.com"],
    claim=ZoneChoice(BrokerKind.MOSQUITTO, 8884),
    fleet=ZoneChoice(BrokerKind.MOSQUITTO, 8883),
)


def zone(**changed: Any) -> ZoneSettings:
    made = {"broker": "mosquitto", "port": 8883, "pid_file": "p", "admin_socket": "r/a"}
    return ZoneSettings(**{**made, "service_port": 8893, **changed})


def test_what_init_writes_fits_the_stock_configuration(tmp_path: Path) -> None:
    (tmp_path / "muster.toml").write_text(settings_text(MADE))
    settings = read_settings(tmp_path)
    for each in Zone:
        listeners = [
            line.split()[1:]
            for line in (STOCK / f"{each}.conf").read_text().splitlines()
            if line.startswith("listener ")
        ]
        host, port = settings.zone(each).for_service
        assert listeners[:2] == [[str(settings.zone(each).port)], [str(port), host]]


def test_settings_without_a_port_for_the_service_say_what_is_missing(tmp_path: Path) -> None:
    lines = settings_text(MADE).splitlines()
    kept = [line for line in lines if not line.startswith("service_")]
    (tmp_path / "muster.toml").write_text("\n".join(kept))
    with pytest.raises(Problem) as refused:
        read_settings(tmp_path)
    for port in STOCK_SERVICE_PORTS.values():
        assert f"{port}" in str(refused.value)
    assert refused.value.remedy


def test_an_audit_log_that_stays_for_ever_is_written_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "muster.toml").write_text('[audit]\nkeep = "0"')
    assert read_settings(tmp_path).audit.keep == timedelta()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nporrt = 1", "http.porrt isn't a setting; the closest is http.port."),
        ("[htp]\nport = 1", "htp isn't a setting; the closest is http."),
        ("[audit]\nzzz = 1", "audit.zzz isn't a setting; known here: keep."),
        ("[http]\nport = 99999", "http.port must be at most 65535."),
        ('[http]\nport = "x"', "http.port must be a whole number."),
        ("[limits]\nclaims_per_second = 0", "limits.claims_per_second must be more than 0.0."),
        ('[claim]\nbroker = "emqx"\nport = 1', "claim.broker must be 'embedded' or 'mosquitto'."),
        ("[claim]\nhost = 1\nport = 1", "claim.host must be text, in quotes."),
        ('[claim]\nhost = "a"', "claim.port is missing."),
        ("claim = 1", "claim must be a table."),
        ('[updates]\nsources = "x"', "updates.sources must be a list, in brackets."),
        (
            '[updates]\nsources = ["x"]',
            "updates.sources.0 must be a URL, beginning with http:// or https://.",
        ),
        ('[audit]\nkeep = "1d"', "audit.keep is at least 7d, or 0 for ever."),
        ("[audit]\nkeep = []", 'audit.keep must be a duration, such as "15m" or "90d".'),
        (
            "[claim]\nport = 1\n[fleet]\nport = 1",
            "claim.port and fleet.port are both 1; each has its broker.",
        ),
    ],
)
def test_a_fault_is_said_in_plain_words_with_the_closest_setting(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "muster.toml").write_text(text)
    with pytest.raises(Problem) as refused:
        read_settings(tmp_path)
    assert str(refused.value) == said


@pytest.mark.parametrize("changed", [{"service_port": 0}, {"service_port": 8883}])
def test_the_service_has_a_listener_of_its_own(changed: dict[str, Any]) -> None:
    assert zone().for_service == ("localhost", 8893)
    with pytest.raises(ValidationError, match="service_port"):
        zone(**changed)


def test_no_two_brokers_are_at_one_port() -> None:
    Settings(fleet=zone(), claim=zone(port=8884, service_port=8894))
    with pytest.raises(ValidationError, match=r"claim\.service_port"):
        Settings(fleet=zone(), claim=zone(port=8884))
