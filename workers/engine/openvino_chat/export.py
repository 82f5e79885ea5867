"""From a model folder to OpenVINO's form of it, by optimum-intel, in a process of its own.

    python -m workers.engine.openvino_chat.export SOURCE TARGET

Tracing takes twice the model's memory and a library that a worker otherwise never imports, so neither stays.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.domain.errors import ModelUnavailableError

#: Longest export; a model of several billion weights takes minutes.
_SECONDS_MAX = 3600
_SHOWN_CHARS = 500


def export(source: Path, target: Path) -> None:
    """Write OpenVINO's form of the model in the folder `source` into the folder `target`, weights in 16 bits.

    Raises:
        ModelUnavailableError: The model's architecture is not known there, or its files are no model.
    """
    run_export(__name__, source, target)


def run_export(module: str, source: Path, *arguments: object) -> None:
    """Run our own `module` on the model folder `source`, with these further arguments, in a process of its own.

    Raises:
        ModelUnavailableError: It failed or took too long; the message has the last line it wrote.
    """
    command = [sys.executable, "-P", "-m", module, str(source), *map(str, arguments)]
    root = Path(__file__).parents[3]
    try:
        done = subprocess.run(  # noqa: S603 -- our own module, arguments are paths
            command, check=False, capture_output=True, text=True, timeout=_SECONDS_MAX, env=_environment(root)
        )
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailableError(f"{source.name} was not exported within {_SECONDS_MAX} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ModelUnavailableError(f"{source.name} cannot be exported to OpenVINO: {said[-1][:_SHOWN_CHARS]}")


def _environment(root: Path) -> dict[str, str]:
    import os

    # What the libraries would fetch or report has no place here.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **offline, "PYTHONPATH": path}


def _main() -> None:
    from optimum.exporters.openvino import main_export

    source, target = sys.argv[1:]
    main_export(
        source,
        Path(target),
        task="text-generation-with-past",
        library_name="transformers",
        # Prompts come as tokens and answers leave as tokens: one tokenizer for every engine.
        convert_tokenizer=False,
        stateful=True,
        trust_remote_code=False,
    )


if __name__ == "__main__":
    _main()
