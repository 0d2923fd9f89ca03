"""Options of `insitu run` that a kind of model has no use for are refused, whatever the kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("model", "options", "mentions"),
    [
        ("shape:llama-3-8b", ("--data", "x.npz"), ("--data", "is a shape, no language model or network")),
        ("shape:llama-3-8b", ("--physics", "full"), ("--physics", "a language model")),
        ("task:kws", ("--prompt", "Once"), ("--prompt", "task:kws is a network, no language model")),
        ("task:kws", ("--batch", "4"), ("--batch", "a shape")),
        ("nowhere/model", ("--prompt", "Once"), ("nowhere/model", "no folder 'nowhere'")),
    ],
)
def test_an_option_that_changes_nothing_is_refused(
    insitu: Any, model: str, options: tuple[str, ...], mentions: tuple[str, ...]
) -> None:
    done = insitu("run", model, "--chip", "dcim-28nm", *options)
    assert (done.code, done.out) == (1, "")
    assert all(words in done.err for words in mentions)


def test_one_chip_means_one_chip(insitu: Any) -> None:
    assert insitu("run", "shape:llama-3-8b", "--chip", "dcim-28nm", "--max-chips", 1).code == 2
    assert insitu("run", "shape:llama-3-8b", "--chip", "dcim-28nm").code == 0


def test_language_models(insitu: Any, shared_data: Path) -> None:
    model = shared_data / "stories260k"
    for options, words in (
        (("--vs", "h100"), "is a language model, no shape or network"),
        (("--samples", "some"), "not a number of samples"),
        (("--prompt", "once upon " * 400), "--context 2048"),
    ):
        done = insitu("run", model, "--chip", "dcim-28nm", *options)
        assert (done.code, done.out) == (1, "")
        assert words in done.err
