"""Systems of chips: each runs by one command, says what is assumed, and its links and loads cost what they must."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from insitu.arch.load import load_chip
from insitu.cli.main import main
from insitu.llm.on_chips import Cards, OnChips, batch_rate, token
from insitu.llm.shapes import shapes
from insitu.llm.systems import assumed, load_chip_system, system_names
from tests.llm.folders import write_folder


@pytest.mark.parametrize("name", system_names())
def test_each_runs_by_one_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shape = "llama-3-70b" if name == "pim-rack" else "llama-3.2-1b"
    assert main(["run", f"shape:{shape}", "--chip", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["system"]["name"] == name
    assert {"weights", "attention", "kv", "links"} <= shown["seconds_per_token"].keys()
    assert {"weights", "attention", "kv", "links", "host"} <= shown["joules_per_token"].keys()
    spent = sum(shown["joules_per_token"].values())
    assert shown["metrics"]["energy_per_token_j"]["value"] == pytest.approx(spent, rel=1e-6)


@pytest.mark.parametrize("name", system_names())
def test_every_value_has_a_source(name: str) -> None:
    system = load_chip_system(name)
    changed = {line.partition("=")[0] for line in system.set}
    named = tuple(system.sources)
    assert [path for path in changed if not any(path.startswith(n) or n.startswith(path) for n in named)] == []
    assert assumed(system)


def test_names_that_are_nearly_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "shape:llama-3-8b", "--chip", "pim-rak", "--json"]) == 1
    assert "pim-rack" in json.loads(capsys.readouterr().out)["error"]["try"]
    folder = write_folder(tmp_path / "m", "llama")
    assert main(["run", str(folder), "--chip", "pim-rack", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["need"] == "one chip: aim-gddr6"


def test_weights_that_stream_bound_the_rate() -> None:
    system, shape = load_chip_system("phone-sram"), shapes()["llama-3-8b"]
    on = OnChips(shape, system.described([]), limit=1)
    alone, many = token(on, keys=100), batch_rate(on, keys=100, batch=8)[0]
    bandwidth = on.chip.store_bandwidth
    assert bandwidth == pytest.approx(4.2e9)
    assert alone.seconds["stream"] == pytest.approx((shape.stored_weights - on.chip.capacity) / bandwidth)
    assert 7 / alone.latency < many <= 8 / alone.latency  # one load serves all of a batch
    assert on.cache_room < 16 * 2**30  # caches do not lie in flash


def test_flash_gives_the_published_rates() -> None:
    """The bandwidth is fitted to Cambricon-LLM's two rates; attention and caches come on top."""
    chip = load_chip_system("phone-nand").described([])
    for name, rate in (("llama-2-7b", 36.34), ("llama-2-70b", 3.44)):
        one = token(OnChips(shapes()[name], chip), keys=1)
        assert 1 / one.seconds["weights"] == pytest.approx(rate, rel=0.1)


def test_tensor_and_pipeline() -> None:
    """More chips on a layer divide its work and multiply what crosses links."""
    on = OnChips(shapes()["llama-3-70b"], load_chip("aim-gddr6"))
    few, many = (replace(on, tensor=degree, limit=on.count) for degree in (1, 16))
    one, two = token(few, keys=512), token(many, keys=512)
    assert two.seconds["weights"] == pytest.approx(one.seconds["weights"] / 16)
    assert two.counts["link_bytes"] > one.counts["link_bytes"]
    shape = on.shape
    reduces, stages = shape.layers * 2 * 2 * shape.width * 2 * 15, round(on.count / 16)
    assert two.counts["link_bytes"] == pytest.approx(reduces + (stages - 1) * shape.width * 2)


def test_what_leaves_a_card_takes_the_slower_link() -> None:
    chip, shape = load_chip("aim-gddr6"), shapes()["llama-3-70b"]
    near = OnChips(shape, chip, tensor=8, cards=Cards(8, 1e9, 5e-6))
    far = replace(near, cards=Cards(4, 1e9, 5e-6))
    slow, quick = token(far, keys=1).seconds["links"], token(near, keys=1).seconds["links"]
    assert slow > 2 * quick
    assert token(near, keys=1).counts["link_bytes"] == token(far, keys=1).counts["link_bytes"]
    powered = token(replace(near, cards=Cards(8, 1e9, 5e-6, power=10.0, shared=100.0)), keys=1)
    plain = token(near, keys=1)
    watts = 10.0 * near.cards.of(near.count) + 100.0
    assert powered.joules["host"] - plain.joules["host"] == pytest.approx(watts * plain.latency)
