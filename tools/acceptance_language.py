"""One language model as a user would deploy it, and what the acceptance points look at, as one JSON object.

python tools/acceptance_language.py stories float            200 greedy tokens of the float front end
python tools/acceptance_language.py stories digital          teacher-forced on the ideal digital chip
python tools/acceptance_language.py stories shifts           the same with scales that are powers of two
python tools/acceptance_language.py stories physics          three instances of the SONOS chip, full physics
python tools/acceptance_language.py families                 every family with random weights; broken folders
python tools/acceptance_language.py shapes                   counts of all shapes against the shared facts
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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


def deployed(chip: str, *overrides: str) -> Any:
    from insitu.arch.load import load_chip
    from insitu.flow.language import LanguageOptions, deploy_language

    options = LanguageOptions(context=128)
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


def families() -> dict[str, Any]:
    """Each family's folder through the command; broken folders have to end in one error and exit code 1."""
    sys.path.insert(0, str(ROOT))
    from tests.llm.folders import FAMILIES, write_folder

    good, wrong = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        for family in FAMILIES:
            folder = write_folder(Path(place) / family, family)
            if family == "bert":
                (good if _encoder(folder) else wrong).append(family)
                continue
            code, report = run(folder, Path(place) / f"{family}-run")
            fine = code == 0 and report["bit_exact"]["mismatches"] == 0 and len(report["generated"]["tokens"]) == 4
            (good if fine else wrong).append(family)
        return {"families": len(good), "wrong": wrong, "broken_refused": _broken(Path(place), write_folder)}


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


def _broken(place: Path, write_folder: Any) -> int:
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
    refused = [run(folder, place / f"{name}-run") for name, folder in cases.items()]
    fine = [code == 1 and report["error"]["code"] == "model" for code, report in refused]
    return 0 if ran.exists() else sum(fine)


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
        ("stories", "shifts"): lambda: digital("capabilities.scales=power_of_two"), ("families",): families,
        ("shapes",): shapes,
    }  # fmt: skip
    if tuple(words) not in makers:
        print(__doc__, file=sys.stderr)
        return 1
    print(json.dumps(makers[tuple(words)](), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
