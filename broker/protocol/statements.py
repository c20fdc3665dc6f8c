"""What is signed, byte for byte. Each kind begins with a line of its own, so that a signature made
for one purpose is worth nothing for another."""


def recovery_statement(request_id: str, csr_sha256: str) -> bytes:
    """What a device signs with the key of its last certificate to recover.

    Args:
        csr_sha256: SHA-256 of the signing request in DER, 64 lower-case hex digits.
    """
    return f"muster-recover-v1\n{request_id}\n{csr_sha256}".encode()


def renewal_statement(request_id: str, device_id: str, csr_sha256: str, order: int | None) -> bytes:
    """What a device signs to renew, with the key of a certificate that it has now.

    Args:
        csr_sha256: SHA-256 of the signing request in DER, 64 lower-case hex digits.
        order: the version of the rotation order that is followed; none when there is none.
    """
    return f"muster-renew-v1\n{request_id}\n{device_id}\n{csr_sha256}\n{order or 0}".encode()


def confirmation_statement(request_id: str, device_id: str, certificate_sha256: str) -> bytes:
    """What a device signs to confirm a certificate, with the key of that one.

    Args:
        certificate_sha256: SHA-256 of the certificate in DER, 64 lower-case hex digits.
    """
    return f"muster-confirm-v1\n{request_id}\n{device_id}\n{certificate_sha256}".encode()


def trust_bundle_statement(bundle: str) -> bytes:
    """What the root's key signs: the bundle's JSON text as it travels."""
    return b"muster-trust-bundle-v1\n" + bundle.encode()


def assignment_statement(assignment: str) -> bytes:
    """What the director's key signs: the assignment's JSON text as it travels."""
    return b"muster-assignment-v1\n" + assignment.encode()


def report_statement(report: str) -> bytes:
    """What a device's key signs: the report's JSON text as it travels."""
    return b"muster-report-v1\n" + report.encode()


def software_statement(report: str) -> bytes:
    """What a device's key signs to say what it runs: the report's JSON text as it travels."""
    return b"muster-software-v1\n" + report.encode()
