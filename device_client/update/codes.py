"""Why an update was refused or undone: one stable code each, as it goes into reports."""

from enum import StrEnum
from typing import Final

from device_client.errors import DeviceError


class UpdateCode(StrEnum):
    """What stands against an update; docs/updates.md lists them."""

    ROOT_MISSING = "root_missing"
    METADATA_MISSING = "metadata_missing"
    METADATA_TOO_LARGE = "metadata_too_large"
    METADATA_MALFORMED = "metadata_malformed"
    SIGNER_UNKNOWN = "signer_unknown"
    SIGNATURES_TOO_FEW = "signatures_too_few"
    KEY_REVOKED = "key_revoked"
    METADATA_ROLLED_BACK = "metadata_rolled_back"
    METADATA_EXPIRED = "metadata_expired"
    METADATA_MIXED = "metadata_mixed"
    VERSION_TOO_HIGH = "version_too_high"

    ASSIGNMENT_MALFORMED = "assignment_malformed"
    ASSIGNMENT_UNTRUSTED = "assignment_untrusted"
    ASSIGNMENT_NOT_OURS = "assignment_not_ours"
    ASSIGNMENT_REPLAYED = "assignment_replayed"
    ASSIGNMENT_EXPIRED = "assignment_expired"
    TARGET_UNKNOWN = "target_unknown"
    TARGET_MISMATCH = "target_mismatch"
    FACTS_INVALID = "facts_invalid"
    MODEL_WRONG = "model_wrong"
    HARDWARE_WRONG = "hardware_wrong"
    COMPONENT_UNKNOWN = "component_unknown"
    COUNTER_TOO_LOW = "counter_too_low"
    SOURCE_TOO_OLD = "source_too_old"
    DEPENDENCY_MISSING = "dependency_missing"

    SOURCE_NOT_ALLOWED = "source_not_allowed"
    IMAGE_UNAVAILABLE = "image_unavailable"
    IMAGE_TOO_LONG = "image_too_long"
    IMAGE_TOO_SLOW = "image_too_slow"
    IMAGE_BUDGET_SPENT = "image_budget_spent"
    IMAGE_WRONG = "image_wrong"
    IMAGE_CHANGED = "image_changed"
    IMAGE_TAMPERED = "image_tampered"
    SPACE_MISSING = "space_missing"
    STORAGE_UNUSABLE = "storage_unusable"

    INSTALL_FAILED = "install_failed"
    HEALTH_FAILED = "health_failed"
    HEALTH_TIMED_OUT = "health_timed_out"
    ATTEMPTS_SPENT = "attempts_spent"
    ROLLBACK_FAILED = "rollback_failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


PASSING: Final = frozenset(
    {
        UpdateCode.METADATA_MISSING,
        UpdateCode.METADATA_TOO_LARGE,
        UpdateCode.METADATA_MALFORMED,
        UpdateCode.SIGNER_UNKNOWN,
        UpdateCode.SIGNATURES_TOO_FEW,
        UpdateCode.KEY_REVOKED,
        UpdateCode.METADATA_ROLLED_BACK,
        UpdateCode.METADATA_EXPIRED,
        UpdateCode.METADATA_MIXED,
        UpdateCode.VERSION_TOO_HIGH,
        UpdateCode.TARGET_UNKNOWN,
        UpdateCode.SOURCE_NOT_ALLOWED,
        UpdateCode.IMAGE_UNAVAILABLE,
        UpdateCode.IMAGE_TOO_LONG,
        UpdateCode.IMAGE_TOO_SLOW,
        UpdateCode.IMAGE_WRONG,
        UpdateCode.IMAGE_CHANGED,
        UpdateCode.IMAGE_TAMPERED,
        UpdateCode.SPACE_MISSING,
        UpdateCode.STORAGE_UNUSABLE,
    }
)
"""What another try may mend: whoever stands in the way mustn't have the last word at once."""

LASTING: Final = frozenset({UpdateCode.METADATA_MISSING, UpdateCode.METADATA_EXPIRED})
"""What passes by itself, however long it takes: the service was away, or this device's clock is
wrong. It's tried for as long as the assignment holds, and no try counts."""

_REMEDIES: Final = {
    UpdateCode.ROOT_MISSING: "Flash the repository's root: 'muster-device run --update-root FILE'.",
    UpdateCode.METADATA_EXPIRED: "See 'muster update status': it tells which role has lapsed. "
    "If none has, check this device's clock.",
    UpdateCode.SOURCE_NOT_ALLOWED: "Name the host in the device's setting 'update_hosts', if "
    "images are to come from there.",
    UpdateCode.SPACE_MISSING: "Make room on the device's disk.",
    UpdateCode.STORAGE_UNUSABLE: "See that the disk can be written and this user owns the slots.",
    UpdateCode.ROLLBACK_FAILED: "See to the device's slots; a new assignment of another image may "
    "mend it.",
    UpdateCode.SOURCE_TOO_OLD: "Install a version between first. If the device doesn't know its "
    "own, say what came from the factory: 'version' in its configuration.",
    UpdateCode.COUNTER_TOO_LOW: "Assign an image whose security counter is as high as the device's",
}


class UpdateRefused(DeviceError):
    """Something of an update can't be trusted, chosen or installed."""

    def __init__(self, why: UpdateCode, message: str) -> None:
        super().__init__(message, _REMEDIES.get(why, ""))
        self.why = why

    @property
    def stable_code(self) -> str:
        """The update code."""
        return self.why
