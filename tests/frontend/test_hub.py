"""hf:OWNER/NAME: a made-up cache, revisions, what is lacking, what is said without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from insitu.base.errors import ModelError
from insitu.cli.main import main
from insitu.frontend.hub import TAKEN, cache_root, hub_folder, parse_repository
from insitu.frontend.load import load_language_model
from tests.llm.folders import write_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with somebody/tiny-llama, whole, at one commit."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    place = tmp_path / "hub" / "models--somebody--tiny-llama"
    write_folder(place / "snapshots" / COMMIT, "llama", shards=3)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return place


@pytest.mark.parametrize("spec", ["", f"@{COMMIT}", "@0123456", "@main"])
def test_from_the_cache(spec: str, home: Path) -> None:
    assert hub_folder(f"hf:somebody/tiny-llama{spec}", offline=True) == home / "snapshots" / COMMIT
    assert load_language_model(f"hf:somebody/tiny-llama{spec}").name == "tiny-llama"


@pytest.mark.parametrize("spec", ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b", "hf:a/b@", "hf:a/b@../../x"])
def test_names(spec: str) -> None:
    if spec.endswith("b@"):
        assert parse_repository(spec).revision == "main"
        return
    with pytest.raises(ModelError, match="no name of a Hugging Face repository"):
        parse_repository(spec)


def test_what_to_type(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"not in the local cache.*pip install"):
        hub_folder("hf:somebody/other")
    with pytest.raises(ModelError, match=r"not in the local cache.*hf download somebody/tiny-llama --revision v2"):
        hub_folder("hf:somebody/tiny-llama@v2", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="network may not be used"):
        hub_folder("hf:somebody/other")
    (home / "snapshots" / COMMIT / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"without model-00002-of-00003\.safetensors"):
        hub_folder("hf:somebody/tiny-llama")


def test_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **more: Any) -> str:
        asked.append({"name": name, **more})
        if name == "somebody/gone":
            raise RuntimeError("404\nmore")
        return str(write_folder(home / "snapshots" / "other", "llama"))

    package = ModuleType("huggingface_hub")
    package.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    assert hub_folder("hf:somebody/other@v1") == home / "snapshots" / "other"
    assert asked[0]["revision"] == "v1"
    assert asked[0]["allow_patterns"] == list(TAKEN)
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in TAKEN)
    with pytest.raises(ModelError, match=r"fetching it failed \(RuntimeError: 404\)"):
        hub_folder("hf:somebody/gone")


def test_where_the_cache_is(tmp_path: Path) -> None:
    assert cache_root({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert cache_root({"HF_HOME": "/b"}) == Path("/b/hub")
    assert cache_root({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


def test_the_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "hf:somebody/tiny-llama", "--offline", "--chip", "dcim-28nm", "--prompt", "ids:3", "--tokens", "2",
            "--context", "8", "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "tiny-llama"
    assert main(["run", "hf:somebody/none", "--offline", "--chip", "dcim-28nm", "--json"]) == 1
    assert "not in the local cache" in json.loads(capsys.readouterr().out)["error"]["got"]
