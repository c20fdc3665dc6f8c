"""Sizes that hold on the wire, in bytes unless the name says otherwise; checked before parsing."""

from typing import Final

MAX_REQUEST: Final = 12_288
"""A whole request. The claim broker's packet limit of 16 KiB leaves room for the topic."""
MAX_ANSWER: Final = 65_536
MAX_CSR: Final = 8_192
"""Characters of a PEM CSR; an RSA 4096 request with a name needs about 1,800."""
MAX_REQUEST_ID: Final = 64
MAX_PARAMETERS: Final = 16
MAX_PARAMETER_VALUE: Final = 128
MAX_TOPIC: Final = 256
MAX_BUNDLE: Final = 65_536
MAX_CERTIFICATE: Final = 4_096
"""Characters of one certificate in PEM; with RSA 4096 about 2,200."""
MAX_SIGNATURE: Final = 1_024
"""Characters of a signature in base64; RSA 4096 needs 684."""
MAX_STATEMENT: Final = 4_096
"""Characters of a signed statement of a device."""
MAX_ASSIGNMENT: Final = 32_768
MAX_METADATA: Final = 196_608
"""Bytes of one file of TUF's metadata; the fleet broker's packet limit is 256 KiB."""
MAX_BLOCK: Final = 32_768
"""Bytes of an image in one answer, before base64."""
MAX_TARGET_PATH: Final = 256
MAX_TARGETS: Final = 16
"""Images in one assignment."""
MAX_COUNTER: Final = (1 << 53) - 1
"""The largest number of an order, an assignment or a counter: what every JSON reader gets right
(RFC 8259, section 6), and every database keeps."""
