"""hf:OWNER/NAME[@REVISION] -> a local folder: the Hugging Face cache first, then the network, if that may be used.

Of a repository config.json, safetensors (and their index) and the tokenizer's files are taken; pickles never.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from insitu.base.errors import ModelError
from insitu.frontend.checkpoint import CONFIG, INDEX

PREFIX, MAIN = "hf:", "main"
TAKEN = (
    "config.json", "generation_config.json", "*.safetensors", INDEX, "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "vocab.json", "merges.txt",
)  # fmt: skip
NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


@dataclass(frozen=True)
class Repository:
    """What is asked for."""

    name: str  # owner/name, or a name without an owner
    revision: str = MAIN

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision != MAIN else "")

    @property
    def short(self) -> str:
        """The name without its owner, as reports call the model."""
        return self.name.split("/")[-1]


def parse_repository(spec: str) -> Repository:
    """Raises ModelError for what is no name of a repository."""
    name, _, revision = spec.removeprefix(PREFIX).partition("@")
    revision = revision or MAIN
    if not NAME.fullmatch(name) or not REVISION.fullmatch(revision) or ".." in name + revision:
        need = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        raise ModelError(
            spec[:80], "no name of a Hugging Face repository", need, try_=("hf:roneneldan/TinyStories-1M",)
        )
    return Repository(name, revision)


def hub_folder(spec: str, *, offline: bool = False, environment: Mapping[str, str] | None = None) -> Path:
    """The folder of a repository's files; ModelError says what to type where there is none."""
    wanted = parse_repository(spec)
    known = os.environ if environment is None else environment
    root = cache_root(known)
    found = cached(root, wanted)
    if found is not None and not lacking(found):
        return found
    got = "not in the local cache" if found is None else f"in the local cache without {lacking(found)}"
    ways = (f"hf download {wanted.name} --revision {wanted.revision} --exclude '*.bin' '*.pt'",)
    if offline or known.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        need = f"its files in {root}, since the network may not be used"
        raise ModelError(str(wanted), got, need, try_=ways)
    return _downloaded(wanted, root, got)


def cache_root(environment: Mapping[str, str]) -> Path:
    """Where the hub's files lie, by the same variables as its own tools."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def cached(root: Path, wanted: Repository) -> Path | None:
    """The snapshot of a revision: a branch or tag by its ref, a commit by its hash or a part of it."""
    place = root / f"models--{wanted.name.replace('/', '--')}"
    ref = place / "refs" / wanted.revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted.revision
    snapshots = place / "snapshots"
    if not re.fullmatch(r"[0-9a-f]{7,40}", commit) or not snapshots.is_dir():
        return None
    found = [p for p in sorted(snapshots.iterdir()) if p.name.startswith(commit)]
    return found[0] if len(found) == 1 else None


def lacking(folder: Path) -> str:
    """What a snapshot lacks of a model; empty where it is whole."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    if (folder / INDEX).is_file():
        try:
            shards: set[str] = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return ""  # what reads the folder says what is broken
        return next((s for s in sorted(shards) if not (folder / s).is_file()), "")
    pickled = any(folder.glob("*.bin"))  # what reads the folder says why they are refused
    return "" if any(folder.glob("*.safetensors")) or pickled else "*.safetensors"


def _downloaded(wanted: Repository, root: Path, got: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
    except ImportError:
        need = f"its files in {root}, or the package huggingface_hub to fetch them"
        raise ModelError(str(wanted), got, need, try_=('pip install "insitu[hf]"',)) from None
    try:
        folder = Path(snapshot_download(wanted.name, revision=wanted.revision, cache_dir=str(root),
                                        allow_patterns=list(TAKEN)))  # fmt: skip  # pyright: ignore[reportUnknownArgumentType]
    except Exception as error:  # noqa: BLE001  (network, rights, missing repositories: a family of their own)
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:120]
        need = f"a repository that can be reached, or its files in {root}"
        raise ModelError(str(wanted), f"{got}, and fetching it failed ({reason})", need) from None
    if lack := lacking(folder):
        raise ModelError(str(wanted), f"a repository without {lack}", "config.json and safetensors")
    return folder
