"""What a unit test may not do, checked where it happens: start a process, make or run a network of a checkpoint."""

from __future__ import annotations

import multiprocessing.process
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch


def _is_network(module: torch.nn.Module) -> bool:
    """A UNet, an autoencoder or a text encoder; not the activations that an import of transformers makes."""
    library = type(module).__module__.split(".")[0]
    return library in ("diffusers", "transformers") and hasattr(module, "from_pretrained")


@pytest.fixture(autouse=True, scope="module")
def light() -> Iterator[None]:
    """Fails at once, past every `except Exception`: a test that needs any of it belongs to tests/runs."""

    def refuse(what: str) -> None:
        pytest.fail(f"a unit test {what}; it belongs to tests/runs")

    def start(*_: Any, **__: Any) -> None:
        refuse("starts a process")

    def make(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        if _is_network(module):
            refuse(f"makes a {type(module).__name__}")
        init(module, *args, **kwargs)

    def call(module: torch.nn.Module, _: Any) -> None:
        if _is_network(module):
            refuse(f"runs a {type(module).__name__}")

    init = torch.nn.Module.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start)
        patch.setattr(multiprocessing.process.BaseProcess, "start", start)
        patch.setattr(torch.nn.Module, "__init__", make)
        hook = torch.nn.modules.module.register_module_forward_pre_hook(call)
        yield
        hook.remove()
