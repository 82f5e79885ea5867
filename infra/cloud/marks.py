"""What machines of ours carry, so that they are known again: names, and never a secret."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.ids import WorkerId
from pipeline.ports.fleet import Launch

DEPLOYMENT: Final = "nightrate:deployment"
WORKER: Final = "nightrate:worker"
POOL: Final = "nightrate:pool"
OFFER: Final = "nightrate:offer"
#: Seconds since 1970: when the machine must be gone.
ENDS_BY: Final = "nightrate:ends-by"

_DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,38}[A-Za-z0-9])?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORKER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,61}[A-Za-z0-9]")
#: What an environment may have, all names and values together.
ENVIRONMENT_CHARS_MAX: Final = 65_536


def deployment_of(text: str) -> str:
    """Return the name of a deployment; raises `UsageError` where it cannot be a name everywhere."""
    if not _DEPLOYMENT.fullmatch(text):
        raise UsageError(
            f"{text!r} cannot name a deployment", hint="up to 40 letters, digits and inner hyphens, such as prod-eu"
        )
    return text


def marks_of(launch: Launch, deployment: str) -> dict[str, str]:
    """Return what the machine of a launch carries."""
    return {
        DEPLOYMENT: deployment,
        WORKER: launch.worker_id,
        POOL: launch.pool,
        OFFER: launch.offer,
        ENDS_BY: str(int(launch.ends_by.timestamp())),
    }


def token_of(worker_id: WorkerId, deployment: str) -> str:
    """Return the token of a worker's launch: 64 characters, the same for every try."""
    return hashlib.sha256(f"{deployment}/{worker_id}".encode()).hexdigest()


def objection(launch: Launch) -> str | None:
    """Return why no machine can be started so, or None."""
    if not _WORKER.fullmatch(launch.worker_id):
        return f"{launch.worker_id!r} cannot name a machine: letters, digits, _ and - are accepted"
    for name, value in launch.environment.items():
        if not _VARIABLE.fullmatch(name):
            return f"{name!r} is no name of an environment variable"
        if "\0" in value:
            return f"the value of {name} has a null character"
    if sum(len(name) + len(value) for name, value in launch.environment.items()) > ENVIRONMENT_CHARS_MAX:
        return f"the environment has more than {ENVIRONMENT_CHARS_MAX} characters"
    return None
