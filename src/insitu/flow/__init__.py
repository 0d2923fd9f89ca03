"""The whole chain in one call: a model, a chip, data; what comes back is a Deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.flow.chain import Deployment as Deployment
    from insitu.flow.chain import deploy as deploy

__all__ = ["Deployment", "deploy"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from insitu.flow import chain

        return getattr(chain, name)
    raise AttributeError(name)
