"""One language model as a user would deploy it, and what the acceptance points look at, as one JSON object.

python tools/acceptance_language.py stories float            200 greedy tokens of the float front end
python tools/acceptance_language.py stories digital          teacher-forced on the ideal digital chip
python tools/acceptance_language.py stories shifts           the same with scales that are powers of two
python tools/acceptance_language.py stories physics          three instances of the SONOS chip, full physics
python tools/acceptance_language.py stories cache            keys and values of 4 bits, and of 6
python tools/acceptance_language.py stories pair             a draft on the analog chip for the digital one
python tools/acceptance_language.py systems                  every system of chips with a shape, by one command
python tools/acceptance_language.py families                 every family with random weights
python tools/acceptance_language.py broken                   folders that are broken: refused, nothing executed
python tools/acceptance_language.py shapes                   counts of all shapes against the shared facts
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TEXTS = 30
DIGITAL, ANALOG = "dcim-28nm", "parametric-sonos-adc12"


def shared() -> Path:
    named = os.environ.get("INSITU_SHARED_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


def float_text() -> dict[str, Any]:
    from insitu.frontend.huggingface import read_language_model
    from insitu.frontend.language_graph import text_graph
    from insitu.graph.export import float_session

    folder = shared() / "stories260k"
    ids = np.load(folder / "greedy.npz")["ids"].astype(np.int64)
    logits = float_session(text_graph(read_language_model(folder), len(ids)))({"ids": ids[None, None]})["logits"]
    return {"equal": int((logits[0, 0].argmax(-1)[:-1] == ids[1:]).sum())}


def deployed(chip: str, *overrides: str, cache_bits: int = 8, physics: str = "ideal") -> Any:
    from insitu.arch.load import load_chip
    from insitu.flow.language import LanguageOptions, deploy_language

    options = LanguageOptions(context=128, cache_bits=cache_bits, physics=physics)
    return deploy_language(shared() / "stories260k", load_chip(chip, overrides=overrides), options=options)


def texts(made: Any) -> Any:
    from insitu.llm.tokens import text_tokens

    return text_tokens(made.tokenizer, shared() / "stories260k" / "tokens.npz", 512)[:TEXTS]


def digital(*overrides: str) -> dict[str, Any]:
    from insitu.flow.language import result_of

    made = deployed(DIGITAL, *overrides)
    found, result = made.score(texts(made)), result_of(made, prompt=[1, 403, 407, 261, 378])
    return {
        "tokens": found.tokens, "top1_agreement": found.agreement, "kl": found.divergence, "worse": found.worse,
        "mismatches": result.bit_exact.mismatches, "checked_values": result.bit_exact.checked_values,
        "array_macs_fraction": result.coverage.array_macs_fraction,
    }  # fmt: skip


def physics() -> dict[str, Any]:
    from insitu.flow.figures import array_share

    made = deployed(ANALOG)
    worse = [made.score(texts(made), physics="full", instance=i).worse for i in range(3)]
    return {"worse": worse, "largest": max(worse), "array_macs_fraction": array_share(made.step_graph)}


def cache() -> dict[str, Any]:
    """Ten texts with narrower keys and values."""
    made = {bits: deployed(DIGITAL, cache_bits=bits) for bits in (6, 4)}
    found = {bits: each.score(texts(each)[:10]) for bits, each in made.items()}
    check = made[4].check([1, 403, 407, 261, 378])
    return {
        **{f"worse_{bits}_bits": s.worse for bits, s in found.items()},
        **{f"top1_{bits}_bits": s.agreement for bits, s in found.items()}, "mismatches": check.mismatches,
    }  # fmt: skip


def pair() -> dict[str, Any]:
    from insitu.flow.language import pair_of

    return pair_of(deployed(DIGITAL), deployed(ANALOG, physics="full"), [1, 403, 407, 261, 378], count=60)


def systems() -> dict[str, Any]:
    from insitu.llm.systems import system_names

    fine: list[str] = []
    for name in system_names():
        shape = "llama-3-70b" if name == "pim-rack" else "llama-3.2-1b"
        command = ["insitu", "run", f"shape:{shape}", "--chip", name, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        shown = json.loads(done.stdout)
        parts = {"weights", "attention", "kv", "links"}
        if done.returncode == 0 and parts <= shown["seconds_per_token"].keys() and shown["system"]["sources"]:
            fine.append(name)
    return {"systems": len(fine), "names": fine}


def families() -> dict[str, Any]:
    """Each family's folder through the command, two at a time."""
    sys.path.insert(0, str(ROOT))
    from tests.llm.folders import FAMILIES, write_folder

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        folders = {f: write_folder(Path(place) / f, f) for f in FAMILIES}
        fine = dict(zip(FAMILIES, pool.map(_speaks, folders.values()), strict=True))
        return {"families": sum(fine.values()), "wrong": [f for f in FAMILIES if not fine[f]]}


def _speaks(folder: Path) -> bool:
    """Whether a folder runs without a mismatch and gives its tokens; an encoder: whether it equals its interpreter."""
    if folder.name == "bert":
        return _encoder(folder)
    code, report = run(folder, folder.with_name(f"{folder.name}-run"))
    return code == 0 and report["bit_exact"]["mismatches"] == 0 and len(report["generated"]["tokens"]) == 4


def _encoder(folder: Path) -> bool:
    from insitu.arch.load import load_chip
    from insitu.compiler.pipeline import compile_graph
    from insitu.flow.check import compare
    from insitu.frontend.huggingface import read_language_model
    from insitu.llm.build import prepare
    from insitu.runtime.session import Session

    ids = np.random.default_rng(0).integers(0, 60, (4, 12))
    ready = prepare(read_language_model(folder), load_chip(DIGITAL), ids)
    graph = ready.text(12)
    session = Session(compile_graph(graph, ready.chip), graph=graph)
    return compare(session, {"ids": ids[:2, None]}).mismatches == 0


def broken() -> dict[str, Any]:
    """Broken folders have to end in one error and exit code 1, and nothing of them may be executed."""
    sys.path.insert(0, str(ROOT))
    from tests.llm.folders import write_folder

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        ran, cases = _broken_folders(Path(place), write_folder)
        refused = pool.map(lambda folder: run(folder, folder.with_name(f"{folder.name}-run")), cases)
        fine = [code == 1 and report["error"]["code"] == "model" for code, report in refused]
        return {"broken_refused": 0 if ran.exists() else sum(fine)}


def _broken_folders(place: Path, write_folder: Any) -> tuple[Path, list[Path]]:
    """(what exists once a pickle is executed, folders)."""
    cases = {
        n: write_folder(place / n, "llama", shards=3 if n == "shard" else 1)
        for n in ("shard", "shape", "kind", "pickle")
    }
    (cases["shard"] / "model-00002-of-00003.safetensors").unlink()
    for name, change in (("shape", {"intermediate_size": 40}), ("kind", {"model_type": "lama"})):
        path = cases[name] / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (cases["pickle"] / "model.safetensors").unlink()
    ran = place / "ran"
    (cases["pickle"] / "pytorch_model.bin").write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    return ran, list(cases.values())


def run(folder: Path, out: Path) -> tuple[int, dict[str, Any]]:
    command = ["insitu", "run", str(folder), "--chip", DIGITAL, "--prompt", "ids:3,5", "--tokens", "4"]
    command += ["--context", "16", "--out", str(out), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def shapes() -> dict[str, Any]:
    import yaml

    from insitu.llm.shapes import shapes as known

    facts = yaml.safe_load((shared().parent / "reference" / "models.yaml").read_text())["llms"]
    away: list[float] = []
    for fact in facts:
        shape = known()[fact["id"]]
        pairs = ((shape.parameters, "params_total_computed"), (shape.cached_elements, "kv_cache_elements_per_token"),
                 (shape.macs_per_token, "matmul_macs_per_decode_token_no_attention"))  # fmt: skip
        away += [abs(ours / fact[name] - 1) for ours, name in pairs]
    return {"shapes": len(facts), "largest_error": max(away)}


def main() -> int:
    words = sys.argv[1:]
    makers = {
        ("stories", "float"): float_text, ("stories", "digital"): digital, ("stories", "physics"): physics,
        ("stories", "shifts"): lambda: digital("capabilities.scales=power_of_two"), ("stories", "cache"): cache,
        ("stories", "pair"): pair, ("systems",): systems, ("families",): families, ("broken",): broken,
        ("shapes",): shapes,
    }  # fmt: skip
    if tuple(words) not in makers:
        print(__doc__, file=sys.stderr)
        return 1
    print(json.dumps(makers[tuple(words)](), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
