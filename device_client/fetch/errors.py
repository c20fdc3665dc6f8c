"""Why an image couldn't be fetched."""

from device_client.errors import DeviceError


class FetchError(DeviceError):
    """An image couldn't be fetched; what the sink has is kept, and the next fetch goes on there."""


class ImageTooLong(FetchError):
    """A source had more bytes than the signed length; none of the surplus was written."""

    code = "image_too_long"


class ImageTooSlow(FetchError):
    """A source sent slower than the least rate that is accepted."""

    code = "image_too_slow"


class ImageUnavailable(FetchError):
    """No source has it, or none can be reached."""

    code = "image_unavailable"


class ImageBudgetSpent(FetchError):
    """The bytes that may be fetched in a day are spent."""

    code = "image_budget_spent"
