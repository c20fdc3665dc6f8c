"""Why an image couldn't be fetched."""

from device_client.errors import DeviceError


class FetchError(DeviceError):
    """An image couldn't be fetched; what the sink has is kept, and the next fetch goes on there."""

    retry_after_s: float = 0.0
    """How long the source asked to be left alone."""


class ImageTooLong(FetchError):
    """A source had more bytes than the signed length; none of the surplus was written."""

    code = "image_too_long"


class ImageTooSlow(FetchError):
    """A source sent slower than the least rate that is accepted."""

    code = "image_too_slow"


class ImageUnavailable(FetchError):
    """No source has it, or none can be reached."""

    code = "image_unavailable"


class SourceUnfit(ImageUnavailable):
    """The source doesn't have this image, or may not be used; asking again won't help."""


class SourceNotAllowed(SourceUnfit):
    """The source is on a host that this device doesn't ask; it wasn't looked up either."""

    code = "source_not_allowed"


class ImageBudgetSpent(FetchError):
    """The bytes that may be fetched in a day are spent."""

    code = "image_budget_spent"
