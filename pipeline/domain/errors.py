"""Every error Nightrate raises on purpose: one hierarchy, stable codes.

`code` is API (scripts and clients match on it), the message is for people, `retryable` is data for
the seam that may try again. The docstring is the explanation and the default message.
"""

from __future__ import annotations

from typing import ClassVar


class NightrateError(Exception):
    """Something Nightrate knows about went wrong."""

    code: ClassVar[str] = "nightrate_error"
    retryable: ClassVar[bool] = False
    #: Process exit code of the CLI when this error ends a command.
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """Keep `message` (default: the class's explanation) and `hint`, what would be accepted."""
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        #: For scripts: told beside code, message and hint.
        self.details: dict[str, object] = {}
        super().__init__(self.message if hint is None else f"{self.message} ({hint})")


class UsageError(NightrateError):
    """The command or setting makes no sense as given."""

    code = "usage"
    exit_code = 2


class NotFoundError(NightrateError):
    """Nothing of that name or id exists."""

    code = "not_found"
    exit_code = 3


class RefusedError(NightrateError):
    """The request is understood and refused."""

    code = "refused"
    exit_code = 4


class ConflictError(RefusedError):
    """The thing is in a state that does not allow this."""

    code = "conflict"


class TierNotAllowedError(RefusedError):
    """The tenant's plan does not have this tier."""

    code = "tier_not_allowed"


class BatchLimitError(RefusedError):
    """The tenant has as many batches that have not ended as its plan allows."""

    code = "batch_limit_exceeded"


class IllegalTransitionError(NightrateError):
    """No edge of the state graph leads there."""

    code = "illegal_transition"


class LeaseLostError(NightrateError):
    """The lease moved on: another attempt owns the pack now, so this one's work is dropped."""

    code = "lease_lost"


class NotLeaderError(NightrateError):
    """Another scheduler leads now; this one's write was refused by epoch."""

    code = "not_leader"


class ObjectMissingError(NotFoundError):
    """The object store has no object under that key."""

    code = "object_missing"


class ObjectConflictError(NightrateError):
    """An object with other content already stands under that key; objects are never overwritten."""

    code = "object_conflict"


class ObjectCorruptError(NightrateError):
    """The object's content does not match the hash recorded for it."""

    code = "object_corrupt"


class StoreUnavailableError(NightrateError):
    """The store cannot be reached now; a later try may succeed."""

    code = "store_unavailable"
    retryable = True


class NotRunningError(NightrateError):
    """No stack runs here."""

    code = "not_running"


class ServiceStartError(NightrateError):
    """An embedded server did not start."""

    code = "service_start"


class ModelUnavailableError(NightrateError):
    """The model cannot be loaded on this worker."""

    code = "model_unavailable"


class EvaluationFileError(UsageError):
    """The file of evaluation items cannot be used as it is."""

    code = "bad_evaluation_file"


class GateError(NightrateError):
    """The two models cannot be compared."""

    code = "gate"


class RequestRefusedError(NightrateError):
    """One request cannot be run as asked; the row is errored and the others go on.

    Attributes:
        status_code: HTTP status the row carries in the error file.
        param: JSON path of the offending field, such as `body.temperature`.
    """

    code = "invalid_request"

    def __init__(
        self, message: str, *, code: str = "invalid_request", param: str | None = None, status_code: int = 400
    ) -> None:
        """Keep what is wrong and where."""
        super().__init__(message)
        self.row_code = code
        self.param = param
        self.status_code = status_code
