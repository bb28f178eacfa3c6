"""Windows: a canvas of one window is that window, cells are covered, and borders leave no seam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylebatch.diffusion import ddim
from stylebatch.diffusion.noise import draw
from stylebatch.diffusion.schedule import DiffusionSchedule, Step, scaled_linear_betas
from stylebatch.diffusion.windows import Windows, windowed

SCHEDULE = DiffusionSchedule.from_betas(scaled_linear_betas(1000, 0.00085, 0.012))
STEP = Step(501, 501, 401)


def smooth(x: Tensor, step: Step) -> Tensor:
    """Position-dependent inside a window, as a network with padding is: a 5 x 5 mean over a zero border."""
    return torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2) + 0.1 * x


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("size", [16, 24])
def test_a_canvas_that_fits_is_one_window(circular: bool, size: int) -> None:
    x = draw([1, 2], (4, 16, 16))
    found = windowed(smooth, Windows(size, 8, circular))(x, STEP)
    assert torch.equal(found, smooth(x, STEP))


@pytest.mark.parametrize(
    ("height", "width", "stride", "circular", "corners"),
    [
        (16, 32, 8, False, ((0, 0), (0, 8), (0, 16))),
        (16, 32, 8, True, ((0, 0), (0, 8), (0, 16), (0, 24))),
        (16, 27, 8, False, ((0, 0), (0, 8), (0, 11))),
        (20, 16, 16, False, ((0, 0), (4, 0))),
        (8, 8, 8, False, ((0, 0),)),
    ],
)
def test_views_cover_the_canvas(
    height: int, width: int, stride: int, circular: bool, corners: tuple[tuple[int, int], ...]
) -> None:
    windows = Windows(16, stride, circular)
    assert windows.views(height, width) == corners
    x = draw([1, 2], (4, height, width))
    views = windows.cut(x)
    assert views.shape[0] == 2 * len(corners)
    torch.testing.assert_close(windows.average(views, height, width), x)


@pytest.mark.parametrize("view_batch", [1, 2, 3, 100])
def test_the_number_of_views_per_call_changes_nothing(view_batch: int) -> None:
    x, seen = draw([1, 2], (4, 16, 40)), []

    def counted(part: Tensor, step: Step) -> Tensor:
        seen.append(part.shape[0])
        sample = torch.arange(part.shape[0]) % 2
        return smooth(part, step) * (1 + sample)[:, None, None, None]

    found = windowed(counted, Windows(16, 8), view_batch=view_batch)(x, STEP)
    whole = windowed(smooth, Windows(16, 8))(x, STEP)
    torch.testing.assert_close(found[0], whole[0])
    torch.testing.assert_close(found[1], 2 * whole[1])
    assert max(seen) <= 2 * view_batch


def test_averaging_eps_is_averaging_stepped_latents() -> None:
    x, windows = draw([3], (4, 16, 40)).double(), Windows(16, 8)
    by_eps = ddim.ddim_step(SCHEDULE, x, windowed(smooth, windows)(x, STEP), STEP)
    views = windows.cut(x)
    stepped = ddim.ddim_step(SCHEDULE, views, smooth(views, STEP), STEP)
    torch.testing.assert_close(by_eps, windows.average(stepped, 16, 40), rtol=1e-12, atol=1e-12)


def test_a_circular_canvas_turns_with_its_content() -> None:
    predict = windowed(smooth, Windows(16, 8, circular=True))
    x = draw([3], (4, 16, 32)).double()
    torch.testing.assert_close(predict(x.roll(8, dims=-1), STEP), predict(x, STEP).roll(8, dims=-1))


def towards_mean(x: Tensor, step: Step) -> Tensor:
    """The eps that pulls a window to its own mean: neighbours disagree, and all that is left is their seams."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - SCHEDULE.signal(step.source) * mean) / SCHEDULE.noise(step.source)


def _largest_jump(stride: int) -> float:
    """Largest root mean square step between neighbouring columns after a whole sampling."""
    canvases = draw(range(16), (4, 16, 64)).double()
    predict = windowed(towards_mean, Windows(16, stride))
    x = ddim.run(SCHEDULE, predict, canvases, SCHEDULE.sampling_steps(10))
    return float((x[..., 1:] - x[..., :-1]).square().mean(dim=(0, 1, 2)).sqrt().max())


def test_overlap_takes_the_seams_away() -> None:
    disjoint, half, quarter = (_largest_jump(stride) for stride in (16, 8, 4))
    assert quarter < half < 0.5 * disjoint


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_skips_cells_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"stride: found {stride} with windows of 16; accepted"):
        Windows(16, stride)
