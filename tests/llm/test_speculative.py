"""A pair of models says what the large one says alone, whatever the small one drafts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insitu.cli.main import main
from insitu.flow.language import LanguageDeployment, LanguageOptions, deploy_language
from insitu.llm.speculative import speculate
from tests.llm.folders import write_folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageDeployment, LanguageDeployment]:
    place, options = tmp_path_factory.mktemp("pair"), LanguageOptions(context=24)
    large, small = (
        deploy_language(write_folder(place / n, n), "dcim-28nm", options=options) for n in ("llama", "gpt2")
    )
    return large, small


@pytest.mark.parametrize("ahead", [1, 3])
def test_nothing_changes(pair: tuple[LanguageDeployment, LanguageDeployment], ahead: int) -> None:
    large, small = pair
    alone = [t.id for t in large.generate([3, 5, 7], count=16, stop=())]
    found = speculate(large.session_of("ideal"), small.session_of("ideal"), [3, 5, 7], count=16, ahead=ahead)
    assert list(found.tokens) == alone
    assert found.rounds + found.kept == len(alone)


def test_a_model_agrees_with_itself(pair: tuple[LanguageDeployment, LanguageDeployment]) -> None:
    large, _ = pair
    found = speculate(large.session_of("ideal"), large.session_of("ideal"), [3, 5], count=15, ahead=4)
    assert found.accepted == 1.0
    assert found.per_round == pytest.approx(5.0)
    first = found.tokens[0]
    ended = speculate(large.session_of("ideal"), large.session_of("ideal"), [3, 5], count=15, ahead=4, stop=[first])
    assert ended.tokens == (first,)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large, small = (write_folder(tmp_path / n, n) for n in ("llama", "gpt2"))
    argv = ["run", str(large), "--chip", "dcim-28nm", "--prompt", "ids:3,5", "--tokens", "6", "--context", "16",
            "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    assert main([*argv, "--draft", str(small)]) == 0
    shown = json.loads(capsys.readouterr().out)["speculative"]
    assert shown["same_tokens"] is True
    assert shown["drafted"] >= shown["kept"] >= 0
    encoder = write_folder(tmp_path / "bert", "bert")
    assert main([*argv, "--draft", str(encoder)]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["got"] == "an encoder"
    assert main([*argv, "--draft", str(small), "--temperature", "0.5"]) == 1
    assert "drawn" in json.loads(capsys.readouterr().out)["error"]["got"]
