"""Calls the code of a user's method, and checks what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from stylebatch.engine.ladder import is_device_fault, is_out_of_memory
from stylebatch.methods.user import users_of
from stylebatch.methods.user_code import UserCodeError, place_of, user_code

T = TypeVar("T")


def guarded(
    section: object,
    method: object,
    member: str,
    make: Callable[[], T],
    fault: Callable[[object], str],
) -> T:
    """What a member of the method makes; `section`: the manifest's.

    Raises UserCodeError for what a user's does wrong. `fault` says what is wrong with a result, and what is accepted.
    """
    users = users_of(section)
    if users is None:
        return make()
    with user_code(users.file, passes=_is_of_the_device):
        found = make()
        if wrong := fault(found):
            raise UserCodeError(
                f"{place_of_member(method, member)}: method {users.name}: {member} returned {wrong}"
            )
        return found


def guarded_render(
    section: object,
    method: object,
    expected: tuple[int, ...],
    device: torch.device,
    render: Callable[[], Tensor],
) -> Tensor:
    """Clean latents of shape `expected`, as `guarded`."""

    def fault(found: object) -> str:
        wrong = latents_fault(found, expected)
        return f"{wrong}; accepted: {expected}, clean latents of each sample" if wrong else ""

    made = guarded(section, method, "render", render, fault)
    return made if users_of(section) is None else made.detach().to(device, torch.float32)


def rows_fault(found: object, count: int) -> str:
    """What `found` is, where it is no tensor with a row for each of `count` images."""
    if isinstance(found, Tensor) and found.dim() and found.shape[0] == count:
        return ""
    shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    return f"{shown}; accepted: a tensor with a row for each of {count} images"


def named_rows_fault(found: object, count: int) -> str:
    """As `rows_fault`, of tensors by name."""
    if not isinstance(found, dict):
        return f"{type(found).__name__}; accepted: a dict of tensors by name"
    faults = {name: rows_fault(one, count) for name, one in found.items()}
    return next((f"{name}: {fault}" for name, fault in faults.items() if fault), "")


def pixels_fault(found: object, shape: tuple[int, ...]) -> str:
    """What `found` is, where it is no picture of this shape."""
    if isinstance(found, np.ndarray) and (found.shape, found.dtype) == (shape, np.uint8):
        return ""
    shown = (
        f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
    )
    return f"{shown}; accepted: {shape} uint8"


def place_of_member(method: object, member: str) -> str:
    """`FILE:LINE` of its definition."""
    return place_of(inspect.unwrap(getattr(type(method), member)))


def finite_rows(latents: Tensor) -> list[bool]:
    """Whether each row has neither NaN nor infinity."""
    found: list[bool] = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
    return found


def _is_of_the_device(error: Exception) -> bool:
    """What the ladder of memory or the engine deals with."""
    return is_out_of_memory(error) or is_device_fault(error)


def latents_fault(found: object, expected: tuple[int, ...]) -> str:
    """What `found` is, where it is no tensor of numbers of the shape `expected`."""
    if not isinstance(found, Tensor):
        return "None" if found is None else f"a {type(found).__name__}"
    if not found.is_floating_point():
        return f"a tensor of {str(found.dtype).removeprefix('torch.')}"
    # either has a shape and would fail far from here, in decoding
    if found.layout is not torch.strided or found.is_meta:
        return "a tensor that is sparse or has no data"
    return "" if tuple(found.shape) == expected else str(tuple(found.shape))
