"""What stops an operator's act, as an exception that says what to do next."""

from enum import StrEnum


class ProblemCode(StrEnum):
    """Why a command wasn't carried out; scripts rely on these, so they never change."""

    HOME_MISSING = "home_missing"
    HOME_EXISTS = "home_exists"
    SETTINGS_INVALID = "settings_invalid"
    PASSPHRASE_INVALID = "passphrase_invalid"
    FILE_UNREADABLE = "file_unreadable"
    FILE_EXISTS = "file_exists"
    NAME_INVALID = "name_invalid"
    NAME_USED = "name_used"
    GROUP_FILE_INVALID = "group_file_invalid"
    GROUP_UNKNOWN = "group_unknown"
    CLAIM_CERTIFICATE_UNKNOWN = "claim_certificate_unknown"
    SERIAL_FILE_INVALID = "serial_file_invalid"
    DEVICE_UNKNOWN = "device_unknown"
    CAMPAIGN_UNKNOWN = "campaign_unknown"
    CAMPAIGN_OVER = "campaign_over"
    VALUE_INVALID = "value_invalid"
    ROLLOUT_UNKNOWN = "rollout_unknown"
    ROLLOUT_EXISTS = "rollout_exists"
    ROLLOUT_STATE = "rollout_state"
    ROLLOVER_STATE = "rollover_state"
    DEVICES_LEFT = "devices_left"
    CRL_UNSIGNED = "crl_unsigned"
    CONFIRMATION_MISSING = "confirmation_missing"
    SERVICE_STOPPED = "service_stopped"
    DEMO_FAILED = "demo_failed"


class Problem(Exception):
    """An operator's act can't be done as asked; nothing was changed unless the message says so."""

    def __init__(self, code: ProblemCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


def unknown_device(device_id: str) -> Problem:
    """There is no such device."""
    return Problem(
        ProblemCode.DEVICE_UNKNOWN,
        f"There is no device {device_id!r}.",
        "See 'muster devices list'; by serial number, 'muster events --serial SERIAL'.",
    )


def unknown_group(name: str) -> Problem:
    """There is no group of that name."""
    return Problem(
        ProblemCode.GROUP_UNKNOWN,
        f"There is no enrollment group {name!r}.",
        "See 'muster group list', or make it with 'muster group apply FILE'.",
    )


def unknown_claim_certificate(name: str) -> Problem:
    """There is no claim certificate of that name."""
    return Problem(
        ProblemCode.CLAIM_CERTIFICATE_UNKNOWN,
        f"There is no claim certificate {name!r}.",
        "See 'muster claim-cert list'.",
    )
