"""Hybrid systems: closed forms where they apply, nothing lost, links that lose and stop, places that are overloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.base.errors import InsituError
from insitu.plan.hybrid import Class, Hybrid, Link, Place, Speculative, Split, Step, read_hybrid
from insitu.plan.network import Network, of_graph
from insitu.plan.queues import route, simulate
from insitu.plan.split import seconds, steps_of, with_splits
from tests.cost.test_points import mlp

MANY = 40_000


def one_queue(service: str, load: float, *, servers: int = 1, seed: int = 1) -> Hybrid:
    place = Place.model_validate({"service": service, "servers": servers})
    kind = Class(name="any", steps=(Step(at="cloud", time=1.0),))
    return Hybrid(rate=load * servers, count=MANY, seed=seed, places={"cloud": place}, classes=(kind,))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_m_m_1(load: float) -> None:
    """Time in the system is exponential with mean 1 / (1 - load); 40,000 requests give it within a few percent."""
    times = simulate(one_queue("exponential", load)).all_seconds()
    mean = 1.0 / (1.0 - load)
    assert times.mean() == pytest.approx(mean, rel=0.04)
    assert np.percentile(times, 95) == pytest.approx(-np.log(0.05) * mean, rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_m_d_1(load: float) -> None:
    """Pollaczek and Khinchine: 1 + load / (2 (1 - load)) for fixed service."""
    times = simulate(one_queue("fixed", load)).all_seconds()
    assert times.mean() == pytest.approx(1.0 + load / (2.0 * (1.0 - load)), rel=0.03)


@pytest.mark.slow
def test_m_m_2() -> None:
    """Two servers at load 0.5 each: 1 / (1 - 0.25)."""
    times = simulate(one_queue("exponential", 0.5, servers=2)).all_seconds()
    assert times.mean() == pytest.approx(1.0 / 0.75, rel=0.03)


def test_even_arrivals_below_capacity_never_wait() -> None:
    system = one_queue("fixed", 0.99).model_copy(update={"arrivals": "even", "count": 1000})
    assert simulate(system).all_seconds() == pytest.approx(1.0)


def system(**link: object) -> Hybrid:
    hard = Class(
        name="hard", share=0.4,
        steps=(Step(at="device", time=0.01), Step(at="wifi", bytes=10_000), Step(at="cloud", time=0.002),
               Step(at="wifi", bytes=100)),
        fallback=(Step(at="device", time=0.05),),
    )  # fmt: skip
    easy = Class(name="easy", share=0.6, steps=(Step(at="device", time=0.005),))
    wifi = Link.model_validate({"bandwidth": 1e6, "latency": 0.003, "pj_per_bit": 100.0, "usd_per_gb": 0.1, **link})
    places = {"device": Place(active=0.1, idle=0.01), "cloud": Place(servers=2, active=100.0, usd_per_hour=3.0)}
    return Hybrid(rate=20.0, count=5000, places=places, links={"wifi": wifi}, classes=(easy, hard))


def test_requests_and_bytes_are_conserved() -> None:
    given = system()
    found = simulate(given)
    hard = found.seconds["hard"].size
    assert found.arrived == found.completed == 5000
    assert found.seconds["easy"].size + hard == 5000
    served = {u.name: u for u in found.uses}
    assert served["device"].served == 5000
    assert served["cloud"].served == hard
    assert served["wifi"].served == 2 * hard
    assert served["wifi"].payload_bytes == served["wifi"].sent_bytes == 10_100 * hard == found.network_bytes
    assert found.seconds["hard"].min() >= 0.01 + 0.0101 + 2 * 0.003 + 0.002 - 1e-12
    work = 5000 * 0.005 + hard * 0.005
    joules = work * 0.09 + found.span_s * 0.01 + hard * (0.002 * 100.0 + 8 * 10_100 * 100e-12)
    assert found.energy_j == pytest.approx(joules)
    money = 3.0 * 2 * found.span_s / 3600 + 0.1 * 10_100 * hard / 1e9
    assert found.money_usd == pytest.approx(money)


def test_a_link_that_loses_sends_again_and_loses_no_request() -> None:
    found = simulate(system(loss=0.25, retry=0.05))
    wifi = next(u for u in found.uses if u.name == "wifi")
    assert found.completed == found.arrived
    assert wifi.sent_bytes / wifi.payload_bytes == pytest.approx(1 / 0.75, rel=0.05)
    assert found.seconds["hard"].mean() > simulate(system()).seconds["hard"].mean()


def test_an_outage_waits_or_takes_the_fallback() -> None:
    waited = simulate(system(outages=((10.0, 20.0),)))
    assert waited.completed == waited.arrived
    assert waited.diverted == 0
    assert waited.seconds["hard"].max() > 9.0
    moved = simulate(system(outages=((10.0, 20.0),), max_wait=0.5))
    assert moved.completed == moved.arrived
    assert moved.diverted > 20
    assert moved.seconds["hard"].max() < waited.seconds["hard"].max()


def test_overload_is_named_and_nothing_is_lost() -> None:
    given = one_queue("fixed", 2.0).model_copy(update={"count": 2000})
    found = simulate(given)
    assert found.completed == 2000
    use = found.uses[0]
    assert use.overloaded
    assert use.load == pytest.approx(2.0, rel=0.1)
    assert found.span_s == pytest.approx(2000, rel=0.01)
    assert not simulate(one_queue("fixed", 0.5)).uses[0].overloaded


def test_a_missing_price_leaves_the_money_unknown() -> None:
    found = simulate(system(usd_per_gb=None))
    assert found.money_usd is None
    assert found.unknown == ("links.wifi.usd_per_gb",)


@pytest.mark.parametrize("accept", [0.0, 0.6, 1.0])
def test_a_speculative_pair(accept: float) -> None:
    """Rounds of 1 + a + ... + a^k tokens in the mean; device, link, cloud, link each round."""
    pair = Speculative(
        draft_at="device", verify_at="cloud", link="wifi", draft=0.01, verify=0.05, accept=accept, length=400
    )
    kind = Class(name="text", speculative=pair)
    rng = np.random.default_rng(0)
    rounds = [len(route(kind, rng)) / 4 for _ in range(200)]
    assert np.mean(rounds) == pytest.approx(400 / pair.per_round(), rel=0.02)
    given = system().model_copy(update={"classes": (kind,), "count": 50, "rate": 0.01})
    found = simulate(given)
    assert found.completed == 50
    served = {u.name: u.served for u in found.uses}
    assert served["device"] == served["cloud"] == served["wifi"] / 2


@pytest.fixture(scope="module")
def network() -> Network:
    return of_graph(mlp(256, 128, 10).bind({"N": 1}))


def test_a_split_by_layer(network: Network) -> None:
    split = Split(first_at="device", rest_at="cloud", link="wifi", first="wtm2101", rest="h100")
    given = system().model_copy(update={"classes": (Class(name="net", split=split),)})
    count = len(network.works)
    whole, none = (steps_of(split.model_copy(update={"cut": c}), given, network) for c in (count, 0))
    assert [s.at for s in whole] == ["device"]
    assert whole[0].time == pytest.approx(seconds("wtm2101", network, 0, count))
    assert [s.at for s in none] == ["wifi", "cloud", "wifi"]
    assert none[0].bytes == 256
    parts = [seconds("h100", network, a, b) for a, b in ((0, 1), (1, count))]
    assert sum(parts) == pytest.approx(seconds("h100", network, 0, count))
    best = with_splits(given, network)
    assert simulate(best).completed == 5000
    slow = given.model_copy(update={"links": {"wifi": Link(bandwidth=10.0)}})
    assert steps_of(split, slow, network) == whole
    with pytest.raises(InsituError, match="MODEL"):
        with_splits(given, None)
    with pytest.raises(InsituError, match="at most"):
        steps_of(split.model_copy(update={"cut": 99}), given, network)


def test_faults_of_a_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "h.yaml"
    file.write_text(
        "rate: 1\nplaces: {device: {}}\nlinks: {wifi: {bandwidth: 1 MB/s}}\nclasses:\n"
        "- {name: a, share: 0.5, steps: [{at: devise, time: 1 ms}]}\n"
        "- {name: b, share: 0.4, steps: [{at: wifi, time: 1 ms}]}\n"
    )
    with pytest.raises(InsituError) as caught:
        read_hybrid(file)
    text = str(caught.value)
    assert "0.9" in text
    assert "devise" in text
    assert "device" in text
    assert "bytes" in text


def test_the_example(repository: Path) -> None:
    found = simulate(read_hybrid(repository / "examples" / "hybrid.yaml"))
    assert found.completed == found.arrived == 5000
    assert found.diverted > 0
    assert found.money_usd is None
