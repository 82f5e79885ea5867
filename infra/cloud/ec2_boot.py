"""What a machine at EC2 runs when it starts: its end first, then its worker.

All machines with the same settings run the same script. Who a machine is, and when it ends, are its tags, which it
reads from its metadata: so its launch template can be shared, and holds no worker's name.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from infra.cloud.ec2_terms import Ec2Terms
from infra.cloud.marks import ENDS_BY, WORKER
from pipeline.ports.fleet import Launch

#: EC2's limit, before it is encoded.
USER_DATA_BYTES_MAX: Final = 16_384
#: The variable that tells a worker its machine's id, as bills name it.
INSTANCE_ID: Final = "NIGHTRATE_INSTANCE_ID"
_ENVIRONMENT: Final = "{environment}"
_METADATA: Final = "http://169.254.169.254/latest"

_SCRIPT: Final = """\
#!/bin/sh
# Starts one worker of Nightrate, on a machine that ends by itself.
umask 077
shutdown -h +{minutes_max}
token=$(curl -sf --retry 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' {metadata}/api/token)
look() {{ curl -sf --retry 5 -H "X-aws-ec2-metadata-token: $token" "{metadata}/meta-data/$1"; }}
ends=$(look tags/instance/{ends_by})
worker=$(look tags/instance/{worker})
case "$ends" in
  '' | *[!0-9]*) ;;
  *)
    mkdir -p {root}/var/lib/cloud/scripts/per-boot
    cat >{root}/var/lib/cloud/scripts/per-boot/nightrate-end <<end
#!/bin/sh
left=\\$((($ends - \\$(date +%s)) / 60))
[ "\\$left" -gt 0 ] || left=0
exec shutdown -h +\\$left
end
    chmod 700 {root}/var/lib/cloud/scripts/per-boot/nightrate-end
    {root}/var/lib/cloud/scripts/per-boot/nightrate-end
    ;;
esac
if [ -z "$worker" ]; then
  echo 'nightrate: this machine does not know which worker it is' >&2
  shutdown -h now
  exit 1
fi
mkdir -p {root}/run/nightrate
ENVIRONMENT={root}/run/nightrate/environment
export ENVIRONMENT
{{
{environment}
}} >"$ENVIRONMENT"
{boot_script}
cat >{root}/run/nightrate/worker <<'nightrate-worker'
#!/bin/sh
. {root}/run/nightrate/environment
{command}
shutdown -h now
nightrate-worker
exec systemd-run --unit=nightrate-worker --collect --property=TimeoutStopSec=100 /bin/sh {root}/run/nightrate/worker
"""


def user_data(terms: Ec2Terms, launch: Launch, *, root: str = "", metadata: str = _METADATA) -> str:
    """Return the script; `root` is where its files go, for tests.

    The same for all launches whose environments differ in nothing but the worker's own id.
    """
    environment = {name: value for name, value in launch.environment.items() if name not in terms.withheld}
    names = sorted({INSTANCE_ID, *launch.environment})
    return _SCRIPT.format(
        minutes_max=max(1, terms.lifetime_seconds_max // 60),
        metadata=metadata,
        ends_by=ENDS_BY,
        worker=WORKER,
        root=root,
        environment=_lines(environment, launch.worker_id),
        boot_script=terms.boot_script,
        command=_command(terms.command, names),
    )


def _lines(environment: Mapping[str, str], worker_id: str) -> str:
    lines = []
    if INSTANCE_ID not in environment:
        lines.append(f"""printf 'export {INSTANCE_ID}=%s\\n' "$(look instance-id)\"""")
    for name, value in sorted(environment.items()):
        if value == worker_id:
            lines.append(f"""printf 'export {name}=%s\\n' "$worker\"""")
        else:
            # Quoted for the worker's shell, and once more for this one.
            lines.append(f"printf '%s\\n' {shlex.quote(f'export {name}={shlex.quote(value)}')}")
    return "\n".join(lines)


def _command(command: tuple[str, ...], names: list[str]) -> str:
    words: list[str] = []
    for word in command:
        words += [part for name in names for part in ("--env", name)] if word == _ENVIRONMENT else [word]
    return shlex.join(words)
