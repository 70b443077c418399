"""What a service may refuse, once for every server app; views, API and commands map these to answers."""

from __future__ import annotations


class ApplicationError(Exception):
    """A refusal that the caller may show. ``code`` is stable; ``str(error)`` is for people."""

    code = "error"
    status = 400


class Invalid(ApplicationError):
    """The request itself cannot be carried out as written."""

    code = "invalid"


class NotFound(ApplicationError):
    """Missing, of another tailnet, or not for this person: the three look alike."""

    code = "not_found"
    status = 404


class Forbidden(ApplicationError):
    """The person sees the object, but their role does not include this."""

    code = "forbidden"
    status = 403


class Conflict(ApplicationError):
    """The object is not in a state in which this can be done."""

    code = "conflict"
    status = 409


class Gone(ApplicationError):
    """A one-time or short-lived link that was used or has run out."""

    code = "gone"
    status = 410


class PreconditionFailed(ApplicationError):
    """What was to be changed is no longer what the caller has seen."""

    code = "precondition_failed"
    status = 412


class LimitExceeded(ApplicationError):
    """Too many attempts from one place; ``retry_after`` is in seconds."""

    code = "limit"
    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
