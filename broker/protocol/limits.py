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
