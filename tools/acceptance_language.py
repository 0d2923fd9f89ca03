"""One language model as a user would deploy it, and what the acceptance points look at, as one JSON object.

python tools/acceptance_language.py stories float            200 greedy tokens of the float front end
python tools/acceptance_language.py stories digital          teacher-forced on the ideal digital chip
python tools/acceptance_language.py stories shifts           the same with scales that are powers of two
python tools/acceptance_language.py stories physics          three instances of the SONOS chip, full physics
python tools/acceptance_language.py stories cache            keys and values of 4 bits, and of 6
python tools/acceptance_language.py stories caches         fp16, int8 and int4 keys and values, bytes and perplexity
python tools/acceptance_language.py stories pages          sequences of several lengths in one pool of pages
python tools/acceptance_language.py stories attention      a prompt's attention on lanes and in arrays
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
DIGITAL, ANALOG, HALVES = "dcim-28nm", "parametric-sonos-adc12", "dcim-28nm-fp16"


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


def caches() -> dict[str, Any]:
    """Ten texts with each type of cache: what it costs and takes, and mismatches of its steps."""
    from insitu.flow.language import cache_bytes
    from insitu.sim.counts import count

    shown: dict[str, Any] = {"mismatches": 0}
    for name, bits, chip in (("fp16", 16, HALVES), ("int8", 8, DIGITAL), ("int4", 4, DIGITAL), ("int2", 2, DIGITAL)):
        made = deployed(chip, cache_bits=bits)
        found, checked = made.score(texts(made)[:10]), made.check([1, 403, 407, 261, 378, 432, 322, 261])
        read = count(made.step, made.chip).total["ram_read_bytes"]
        held = cache_bytes(made.step)
        shown |= {f"worse_{name}": found.worse, f"top1_{name}": found.agreement, f"bytes_{name}": held}
        shown[f"ram_read_bytes_{name}"] = read
        shown["mismatches"] += checked.mismatches
    shown["packed"] = shown["bytes_int4"] / shown["bytes_int8"]
    return shown


def pages() -> dict[str, Any]:
    """Six prompts of 1 to 40 tokens in three lanes, of each type of cache: tokens against those of each alone."""
    from insitu.arch.load import load_chip
    from insitu.base.errors import DataError
    from insitu.flow.language import LanguageOptions, cache_bytes, deploy_language
    from insitu.llm.pages import Pool

    shown: dict[str, Any] = {"sequences": 0, "equal": 0, "mismatches": 0, "refused": 0}
    for bits, chip in ((16, HALVES), (8, DIGITAL), (4, DIGITAL)):
        own, paged = (deploy_language(shared() / "stories260k", load_chip(chip), options=LanguageOptions(
            context=96, cache_bits=bits, page_tokens=p, pool_pages=11 if p else 0, lanes=3 if p else 1)) for p in (0, 8)
        )  # fmt: skip
        prompts = [[int(t) for t in text[:n]] for text, n in zip(texts(own), (5, 40, 1, 17, 8, 33), strict=False)]
        pool, found = Pool.of(paged.step_graph), {n: [] for n in range(len(prompts))}
        for number, token in paged.generate_paged(prompts, count=40, pool=pool):
            found[number].append(token.id)
        alone = [[t.id for t in own.generate(p, count=40)] for p in prompts]
        shown["sequences"] += len(prompts)
        shown["equal"] += sum(found[n] == tokens for n, tokens in enumerate(alone))
        shown["mismatches"] += paged.check([1, 403, 407, 261, 378]).mismatches
        shown |= {"peak_pages": pool.peak, "pool_pages": pool.count - 1,
                  "bytes_over_own_caches": cache_bytes(paged.step) / (3 * cache_bytes(own.step))}  # fmt: skip
        try:
            list(paged.generate_paged([[1] * 70], count=40))
        except DataError as error:
            shown["refused"] += "11 pages" in str(error)
    return shown


def attention() -> dict[str, Any]:
    """The same 96 tokens on a chip that writes its arrays while it runs and on one that does not."""
    from insitu.flow import figures
    from insitu.flow.check import compare
    from insitu.runtime.session import Session
    from insitu.sim.counts import count

    shown: dict[str, Any] = {}
    for name, overrides in (("arrays", ()), ("lanes", ("capabilities.wload=false",))):
        made = deployed(DIGITAL, *overrides)
        program, graph = made.text(96)
        cost, total = figures.cost(program, made.chip), count(program, made.chip).total
        shown |= {f"latency_{name}": cost.timing.latency, f"energy_{name}": cost.metrics["energy_j"].value,
                  f"in_{name}": total["stored_macs"] / (total["stored_macs"] + total["mma_macs"])}  # fmt: skip
        if name == "arrays":
            ids = np.asarray([text[:96] for text in texts(made) if len(text) >= 96][:2], np.int64)
            checked = compare(Session(program, graph=graph), {"ids": ids[:, None]})
            shown |= {"mismatches": checked.mismatches, "checked_values": checked.checked_values}
    return {**shown, "time": shown["latency_arrays"] / shown["latency_lanes"],
            "energy": shown["energy_arrays"] / shown["energy_lanes"]}  # fmt: skip


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
        ("stories", "caches"): caches, ("stories", "pages"): pages, ("stories", "attention"): attention,
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
