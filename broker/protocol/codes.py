"""The stable codes of every refusal, with what a person reads and may do about it.

A code is what a device's program and an operator's script rely on: it never changes its meaning.
Some causes are told apart in the audit log only: on the wire they share one public code, so that a
thief of a claim certificate can't use refusals to learn which serial numbers exist.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Why a request was refused."""

    PAYLOAD_TOO_LARGE = "payload_too_large"
    PAYLOAD_MALFORMED = "payload_malformed"
    FIELD_INVALID = "field_invalid"
    OPERATION_UNKNOWN = "operation_unknown"
    ORIGIN_INVALID = "origin_invalid"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    INTERNAL = "internal"

    CSR_MALFORMED = "csr_malformed"
    CSR_SIGNATURE_INVALID = "csr_signature_invalid"
    CSR_CA_REQUESTED = "csr_ca_requested"
    CSR_NAME_MISMATCH = "csr_name_mismatch"
    KEY_NOT_ALLOWED = "key_not_allowed"
    KEY_IN_USE = "key_in_use"
    KEY_NOT_NEW = "key_not_new"
    KEY_RETIRED = "key_retired"

    CLAIM_UNKNOWN = "claim_unknown"
    CLAIM_REVOKED = "claim_revoked"
    CLAIM_EXPIRED = "claim_expired"
    CLAIM_EXHAUSTED = "claim_exhausted"
    CLAIM_WITHOUT_GROUP = "claim_without_group"
    GROUP_FULL = "group_full"

    SERIAL_REFUSED = "serial_refused"
    SERIAL_UNKNOWN = "serial_unknown"
    SERIAL_TAKEN = "serial_taken"
    DEVICE_BLOCKED = "device_blocked"
    PARAMETER_MISSING = "parameter_missing"
    NAME_INVALID = "name_invalid"
    NAME_TAKEN = "name_taken"

    CERTIFICATE_UNKNOWN = "certificate_unknown"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_SUPERSEDED = "certificate_superseded"
    CERTIFICATE_UNCONFIRMED = "certificate_unconfirmed"
    CERTIFICATE_MALFORMED = "certificate_malformed"

    CONFIRMATION_SIGNATURE_INVALID = "confirmation_signature_invalid"
    RENEWAL_SIGNATURE_INVALID = "renewal_signature_invalid"

    RECOVERY_SIGNATURE_INVALID = "recovery_signature_invalid"
    RECOVERY_TOO_EARLY = "recovery_too_early"
    RECOVERY_REFUSED = "recovery_refused"
    RECOVERY_UNKNOWN = "recovery_unknown"
    RECOVERY_OTHER_GROUP = "recovery_other_group"
    RECOVERY_BLOCKED = "recovery_blocked"
    RECOVERY_SUPERSEDED = "recovery_superseded"
    RECOVERY_WINDOW_PASSED = "recovery_window_passed"

    REPORT_SIGNATURE_INVALID = "report_signature_invalid"
    REPORT_DEVICE_MISMATCH = "report_device_mismatch"
    REPORT_CONFLICT = "report_conflict"
    ASSIGNMENT_UNKNOWN = "assignment_unknown"

    IMAGE_NOT_ASSIGNED = "image_not_assigned"


@dataclass(frozen=True)
class Explanation:
    """A sentence for a person, and what to do next."""

    message: str
    remedy: str


EXPLANATIONS: Final[dict[Code, Explanation]] = {
    Code.PAYLOAD_TOO_LARGE: Explanation(
        "The request is larger than this operation allows.",
        "Send only the documented fields; see docs/protocol.md for the sizes.",
    ),
    Code.PAYLOAD_MALFORMED: Explanation(
        "The request isn't a JSON object in UTF-8.",
        "Send one JSON object, encoded in UTF-8, without a byte order mark.",
    ),
    Code.FIELD_INVALID: Explanation(
        "A field is missing or has a wrong type or value.",
        "Compare the request with docs/protocol.md; the message names the field.",
    ),
    Code.OPERATION_UNKNOWN: Explanation(
        "There is no such operation in this zone.",
        "Publish to one of the operations listed in docs/protocol.md.",
    ),
    Code.ORIGIN_INVALID: Explanation(
        "The topic's certificate name or client id isn't well formed.",
        "Connect with a client id of 1 to 64 letters, digits, '_' or '-'.",
    ),
    Code.RATE_LIMITED: Explanation(
        "Too many requests have come from here.",
        "Wait for retry_after_s seconds, then ask again.",
    ),
    Code.BUSY: Explanation(
        "The service has more work waiting than it will queue.",
        "Wait for retry_after_s seconds, then ask again.",
    ),
    Code.INTERNAL: Explanation(
        "The service failed on this request; nothing was changed.",
        "Ask again after retry_after_s seconds; the operator's log has the cause.",
    ),
    Code.CSR_MALFORMED: Explanation(
        "The certificate signing request can't be read.",
        "Send one PKCS#10 request in PEM, as RFC 2986 has it.",
    ),
    Code.CSR_SIGNATURE_INVALID: Explanation(
        "The request isn't signed by the key that it names.",
        "Sign the request with the private key whose public key it holds.",
    ),
    Code.CSR_CA_REQUESTED: Explanation(
        "The request asks for a certificate authority.",
        "Leave basicConstraints and certificate-signing usages out of the request.",
    ),
    Code.CSR_NAME_MISMATCH: Explanation(
        "The request asks for a name that isn't this device's.",
        "Leave the subject empty, or use the serial number; the service sets the name.",
    ),
    Code.KEY_NOT_ALLOWED: Explanation(
        "This type or size of key isn't allowed here.",
        "Use a type that the enrollment group allows: P-256, P-384, Ed25519 or RSA ≥ 3072.",
    ),
    Code.KEY_IN_USE: Explanation(
        "This public key belongs to another device.",
        "Make a fresh key on this device; a key must never be copied between devices.",
    ),
    Code.KEY_NOT_NEW: Explanation(
        "The device's group wants a new key for each certificate.",
        "Make a fresh key on the device, and ask with that.",
    ),
    Code.KEY_RETIRED: Explanation(
        "This key's time is over: its certificate was superseded or revoked.",
        "Make a fresh key on the device, and ask with that; this request was old, or a replay.",
    ),
    Code.CLAIM_UNKNOWN: Explanation(
        "This claim certificate isn't registered.",
        "Flash a bundle made by this installation with 'muster claim-cert create'.",
    ),
    Code.CLAIM_REVOKED: Explanation(
        "This claim certificate has been revoked.",
        "Flash a bundle with a newer claim certificate.",
    ),
    Code.CLAIM_EXPIRED: Explanation(
        "This claim certificate has expired.",
        "Flash a bundle with a newer claim certificate.",
    ),
    Code.CLAIM_EXHAUSTED: Explanation(
        "This claim certificate has made as many claims as it may.",
        "The operator makes a new one with 'muster claim-cert create'.",
    ),
    Code.CLAIM_WITHOUT_GROUP: Explanation(
        "No enrollment group accepts this claim certificate.",
        "The operator lists it in a group file and runs 'muster group apply'.",
    ),
    Code.GROUP_FULL: Explanation(
        "The enrollment group has reached its quota.",
        "The operator raises the quota in the group file and runs 'muster group apply'.",
    ),
    Code.SERIAL_REFUSED: Explanation(
        "This serial number can't be claimed here and now.",
        "The operator finds the reason with 'muster events --serial SERIAL'.",
    ),
    Code.SERIAL_UNKNOWN: Explanation(
        "The serial number isn't on the group's allow-list.",
        "Add it with 'muster enroll import', if the device is genuine.",
    ),
    Code.SERIAL_TAKEN: Explanation(
        "The serial number belongs to a device with another key.",
        "If it was reset, 'muster devices revoke ID' and 'reclaim ID', or allow replacement.",
    ),
    Code.DEVICE_BLOCKED: Explanation(
        "The device has been suspended, revoked or retired.",
        "An operator decides if it may come back: 'muster devices resume ID', or 'reclaim ID'.",
    ),
    Code.PARAMETER_MISSING: Explanation(
        "The group's name rule needs a parameter that wasn't reported.",
        "Report the parameter that the message names.",
    ),
    Code.NAME_INVALID: Explanation(
        "The name that the group's rule gives isn't a valid device name.",
        "Device names have 1 to 64 letters, digits, '_' or '-', and don't begin with 'muster-'.",
    ),
    Code.NAME_TAKEN: Explanation(
        "The name that the group's rule gives belongs to another device.",
        "The group's name rule must give each serial number a name of its own.",
    ),
    Code.CERTIFICATE_UNKNOWN: Explanation(
        "No such certificate was issued to this device.",
        "Confirm the certificate that this connection was made with.",
    ),
    Code.CERTIFICATE_REVOKED: Explanation(
        "This certificate has been revoked.",
        "Claim again, if the device is meant to be in the fleet.",
    ),
    Code.CERTIFICATE_EXPIRED: Explanation(
        "The certificate has expired, and a connection that outlives it is worth no other.",
        "Recover in the claim zone, by the key of the last certificate that was confirmed.",
    ),
    Code.CERTIFICATE_SUPERSEDED: Explanation(
        "The device has proven a newer certificate; this one is good for a little while only.",
        "Connect with the newer one; if the device has lost it, renew at once.",
    ),
    Code.CERTIFICATE_UNCONFIRMED: Explanation(
        "The device hasn't proven the certificate that it has.",
        "Confirm it first, then renew.",
    ),
    Code.CERTIFICATE_MALFORMED: Explanation(
        "The certificate can't be read, or its key is of a kind that is never certified.",
        "Send the device's last certificate in PEM (RFC 7468), without its issuer's.",
    ),
    Code.CONFIRMATION_SIGNATURE_INVALID: Explanation(
        "The confirmation isn't signed by the key of the certificate that it names.",
        "Sign the statement of docs/protocol.md with the key of that certificate.",
    ),
    Code.RENEWAL_SIGNATURE_INVALID: Explanation(
        "The renewal isn't signed by the key of a certificate that the device has now.",
        "Sign the statement of docs/protocol.md with the key of the newest certificate.",
    ),
    Code.RECOVERY_SIGNATURE_INVALID: Explanation(
        "The signature isn't by the certificate's key, or is over something else.",
        "Sign the statement of docs/protocol.md with the key of the last certificate.",
    ),
    Code.RECOVERY_TOO_EARLY: Explanation(
        "The certificate hasn't expired.",
        "Connect to the fleet's broker with it, and renew there.",
    ),
    Code.RECOVERY_REFUSED: Explanation(
        "This certificate can't be recovered here and now.",
        "The operator finds the reason with 'muster events --kind claim.refused'.",
    ),
    Code.RECOVERY_UNKNOWN: Explanation(
        "No such certificate was issued here.",
        "If the device is genuine, have it claim.",
    ),
    Code.RECOVERY_OTHER_GROUP: Explanation(
        "The device belongs to another group than the claim certificate.",
        "Flash a bundle whose claim certificate the device's group lists.",
    ),
    Code.RECOVERY_BLOCKED: Explanation(
        "The device has been suspended, revoked or retired, or its certificate was revoked.",
        "An operator decides if it may come back: 'muster devices resume ID', or 'reclaim ID'.",
    ),
    Code.RECOVERY_SUPERSEDED: Explanation(
        "The device has proven a newer certificate since.",
        "If it has lost that one, 'muster devices revoke ID' and 'reclaim ID'; else its old key "
        "was copied.",
    ),
    Code.RECOVERY_WINDOW_PASSED: Explanation(
        "The certificate expired longer ago than the group's recover_within.",
        "If the device is genuine: 'muster devices approve-recovery ID'.",
    ),
    Code.REPORT_SIGNATURE_INVALID: Explanation(
        "The report isn't signed by the key of a certificate that the device has now.",
        "Sign the statement of docs/protocol.md with the key in use; after a renewal, sign anew.",
    ),
    Code.REPORT_DEVICE_MISMATCH: Explanation(
        "The report is about another device than the one whose topic it came on.",
        "Report with the device's own name, as its certificate says it.",
    ),
    Code.REPORT_CONFLICT: Explanation(
        "Another report has this id already.",
        "Make a fresh report_id for each report, and keep it for the repetitions of that one.",
    ),
    Code.ASSIGNMENT_UNKNOWN: Explanation(
        "The device was never given this assignment.",
        "Report the rollout and the sequence as the signed assignment says them.",
    ),
    Code.IMAGE_NOT_ASSIGNED: Explanation(
        "This image isn't assigned to the device now.",
        "Ask for blocks of what the newest assignment names, by path and SHA-256.",
    ),
}

_PUBLIC: Final[dict[Code, Code]] = {
    Code.SERIAL_UNKNOWN: Code.SERIAL_REFUSED,
    Code.SERIAL_TAKEN: Code.SERIAL_REFUSED,
    Code.DEVICE_BLOCKED: Code.SERIAL_REFUSED,
    Code.NAME_TAKEN: Code.SERIAL_REFUSED,
    Code.RECOVERY_UNKNOWN: Code.RECOVERY_REFUSED,
    Code.RECOVERY_OTHER_GROUP: Code.RECOVERY_REFUSED,
    Code.RECOVERY_BLOCKED: Code.RECOVERY_REFUSED,
    Code.RECOVERY_SUPERSEDED: Code.RECOVERY_REFUSED,
    Code.RECOVERY_WINDOW_PASSED: Code.RECOVERY_REFUSED,
}


def public(code: Code) -> Code:
    """The code that goes on the wire for `code`; the audit log keeps the exact one."""
    return _PUBLIC.get(code, code)


def operators_remedy(code: Code, device_id: str | None = None) -> str | None:
    """What an operator does about a reason that the device isn't told; none for what is public.

    Args:
        device_id: the device, in the place of `ID` in what is to be typed.
    """
    if public(code) is code:
        return None
    remedy = EXPLANATIONS[code].remedy
    return remedy if device_id is None else remedy.replace(" ID'", f" {device_id}'")


class Refused(Exception):
    """A request was refused for the reason `code`; nothing was changed.

    `detail` is a sentence about this very request, kept for the audit log and, where `code` is
    itself public, for the device. `retry_after_s` says that waiting so many seconds may help.
    `serial` and `device_id` say which device it turned out to be about, for the audit log alone.
    """

    def __init__(
        self,
        code: Code,
        detail: str = "",
        retry_after_s: int | None = None,
        serial: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail or EXPLANATIONS[code].message}")
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.serial = serial
        self.device_id: str | None = None
