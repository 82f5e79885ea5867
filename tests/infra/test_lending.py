from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from infra.lending import lent_folder

_BORROW_AND_DIE = """
import os, signal, sys
from pathlib import Path
from infra.lending import lent_folder
with lent_folder(Path(sys.argv[1]), prefix="work-") as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_gone_when_its_borrower_is_done(tmp_path: Path) -> None:
    with lent_folder(tmp_path, prefix="work-") as folder:
        (folder / "inside").mkdir()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_borrower_left_goes_when_the_next_comes(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", _BORROW_AND_DIE, str(tmp_path)], check=False)
    left = list(tmp_path.iterdir())

    with lent_folder(tmp_path, prefix="work-"):
        pass

    assert died.returncode == -signal.SIGKILL
    assert len(left) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_living_borrower_keeps_its_folder(tmp_path: Path) -> None:
    with lent_folder(tmp_path, prefix="work-") as first, lent_folder(tmp_path, prefix="work-") as second:
        assert first.is_dir()
        assert second.is_dir()
