"""The training loop, on accelerate; the same code for one process or many.

1. The config's checkpoint is loaded; the stage wraps the trained part in a module that gives a loss.
2. A step draws its batches from (seed, step), accumulates gradients, clips them, updates the weights and their average.
3. Checkpoints hold weights, optimizer, average, scaler and random states; the newest is continued.
   Since draws are functions of the step, a resumed run takes the same steps as an undisturbed one.
4. At the end the averaged weights go into a copy of the pipeline folder, OUTPUT/model.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel

from stylebatch.errors import Interrupted, ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.unet_family import UNet
from stylebatch.models.unet.unet_loading import as_stable_diffusion
from stylebatch.progress import Progress
from stylebatch.training.captioned import read
from stylebatch.training.checkpoints import (
    CHECKPOINTS,
    StopRequest,
    check_same_run,
    newest,
    require_same_run,
    save,
)
from stylebatch.training.draws import Draws
from stylebatch.training.judge import judge_identity
from stylebatch.training.optimizers import build_optimizer, rate_factor, set_rates
from stylebatch.training.plots import draw_curve, save_grid
from stylebatch.training.spec import TrainSpec
from stylebatch.training.stages import Stage, StageInputs, UnetStage, VaeStage
from stylebatch.usable_cores import usable_cores
from stylebatch.words import counted

STAGES: dict[str, Callable[[StageInputs], Stage]] = {"unet": UnetStage, "vae": VaeStage}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LOG_EVERY = 10


@dataclass(frozen=True)
class TrainResult:
    """The trained pipeline folder, the number of steps in all, and the last logged measures."""

    model: Path
    steps: int
    measures: dict[str, float] = field(default_factory=dict)


def train(spec: TrainSpec, progress: Progress | None = None) -> TrainResult:
    """Train, or continue, the run that `spec` describes.

    Raises ManifestError for bad data or models, PlanChangedError if the output holds another run, Interrupted
    (with a checkpoint written) on SIGINT or SIGTERM.
    """
    out = Path(spec.output)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=spec.precision,
        gradient_accumulation_steps=spec.accumulation,
        log_with=spec.tracker,
        project_dir=str(out),
    )
    # accelerate leaves torch at all cores for every process
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(spec.threads or max(1, usable_cores() // local))
    set_seed(spec.seed)
    checkpoint = _trainable(spec)
    identity = {"checkpoint": checkpoint.fingerprint} | judge_identity(spec)
    # the others then find the files of `datasets` made
    with accelerator.main_process_first():
        check_same_run(out / "run.json", spec, identity, accelerator.num_processes)
        images = read(spec.data, out / "data")
    parts = as_stable_diffusion(
        load_checkpoint(checkpoint, dtype="float32", device=accelerator.device)
    )
    stage: Stage = STAGES[spec.stage](
        StageInputs(spec, checkpoint, parts, images, out, accelerator)
    )
    loop = _Loop(spec, accelerator, stage, progress or Progress(), out)
    with StopRequest(accelerator).listening() as stop:
        loop.run(stop)
    model = out / "model"
    if accelerator.is_main_process:
        with loop.averaged():
            _export(stage, checkpoint.folder, model, spec)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TrainResult(model, spec.steps, loop.last)


def foresee(spec: TrainSpec) -> str:
    """What `train` would do by this process. Raises what it would raise before it reads images."""
    checkpoint = _trainable(spec)
    out = Path(spec.output)
    identity = {"checkpoint": checkpoint.fingerprint} | judge_identity(spec)
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    found = require_same_run(out / "run.json", spec, identity, num_processes)
    first = 0 if found is None else found[1]
    left, whole = counted(spec.steps - first, "step"), counted(spec.steps, "step")
    return f"{out}: would train {spec.stage} of {checkpoint.folder} for {left} of {whole}"


def _trainable(spec: TrainSpec) -> Checkpoint:
    checkpoint = find_checkpoint(spec.model)
    if not isinstance(checkpoint.family, UNet) or checkpoint.family.is_xl:
        raise ManifestError(
            f"model: {checkpoint.folder} is a {checkpoint.family.about().title} checkpoint, which training does not support; "
            "accepted: Stable Diffusion 1.x and 2.x"
        )
    return checkpoint


class _Loop:
    """The state of a run, and its steps."""

    def __init__(
        self, spec: TrainSpec, accelerator: Accelerator, stage: Stage, progress: Progress, out: Path
    ) -> None:
        self.spec, self.accelerator, self.stage, self.progress, self.out = (
            spec,
            accelerator,
            stage,
            progress,
            out,
        )
        self.parameters = [p for p in stage.trained.parameters() if p.requires_grad]
        self.average = (
            EMAModel(self.parameters, decay=spec.ema, foreach=True)
            if spec.ema is not None
            else None
        )
        self.model, self.optimizer = accelerator.prepare(
            stage.module, build_optimizer(stage.module, spec.optimizer)
        )
        if self.average is not None:
            self.average.to(accelerator.device)
            accelerator.register_for_checkpointing(self.average)
        self.draws = Draws(
            spec, stage.rows, stage.groups, accelerator.process_index, accelerator.num_processes
        )
        # after `prepare` and registering: accelerate restores what it knows
        self.first = 0
        if found := newest(out / CHECKPOINTS):
            accelerator.load_state(str(found[0]))
            self.first = found[1]
        if spec.tracker is not None:
            accelerator.init_trackers("log")
        self.last: dict[str, float] = {}

    def run(self, stop: StopRequest) -> None:
        """Steps from the newest checkpoint to the end."""
        spec, started = self.spec, time.monotonic()
        self.progress.begin(
            evaluations=spec.steps - self.first,
            samples=spec.steps,
            samples_done=self.first,
            unit="steps",
        )
        self.progress.enter_shard(spec.stage)
        try:
            for step in range(self.first, spec.steps):
                loss, error = self._step(step)
                done = step + 1
                self.progress.advance(1)
                if done % LOG_EVERY == 0 or done == spec.steps:
                    self._log(done, loss, error, time.monotonic() - started)
                signum = stop.agreed()
                if signum or done % spec.checkpoints.every == 0 or done == spec.steps:
                    save(self.accelerator, self.out / CHECKPOINTS, done, spec.checkpoints.keep)
                if signum:
                    raise Interrupted(signum)
                if done % spec.validation.every == 0 or done == spec.steps:
                    self._validate(done)
        finally:
            self.progress.end()

    def _step(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        set_rates(self.optimizer, rate_factor((step + 1) / self.spec.steps, self.spec.optimizer))
        losses, errors = [], []
        for draw in self.draws.between(step, step + 1):
            with self.accelerator.accumulate(self.model):
                loss, error = self.stage.loss(self.model, draw)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.parameters, self.spec.optimizer.max_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
            errors.append(error)
        if self.average is not None:
            self.average.step(self.parameters)
        loss, error = torch.stack(losses).mean(), torch.stack(errors).mean()
        # with fp16 an overflow is usual: the scaler skips the step
        if not torch.isfinite(loss) and self.spec.precision != "fp16":
            raise ManifestError(
                f"step {step}: the loss is {float(loss)}; lower optimizer.rate (now {self.spec.optimizer.rate}) "
                "and run again: it continues from the last checkpoint"
            )
        return loss, error

    def _log(self, step: int, loss: torch.Tensor, error: torch.Tensor, seconds: float) -> None:
        both = self.accelerator.reduce(torch.stack([loss, error]), "mean").tolist()
        if not self.accelerator.is_main_process:
            return
        values = {"loss": both[0], **self.stage.measures(both[1])}
        self.last = values
        self.accelerator.log(values, step=step)
        line = {
            "step": step,
            "seconds": round(seconds, 1),
            **{k: round(v, 6) for k, v in values.items()},
        }
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self.progress.note(", ".join(f"{name} {value:.4g}" for name, value in line.items()))

    def _validate(self, step: int) -> None:
        if self.accelerator.is_main_process:
            self.stage.trained.eval()
            with self.averaged():
                shown = self.stage.validate()
            self.stage.trained.train()
            canvas = save_grid(
                shown.pictures, shown.columns, self.out / "samples" / f"step-{step:07d}.png"
            )
            line = {"step": step, **shown.measures}
            if shown.measures:
                with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                self.progress.note(", ".join(f"{name} {value:.4g}" for name, value in line.items()))
                self.accelerator.log(shown.measures, step=step)
                self.last = self.last | shown.measures
            for tracker in self.accelerator.trackers:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"samples": canvas[None]}, step=step, **layout)
            draw_curve(self.out / "log.jsonl", self.out / "loss.png")
        self.accelerator.wait_for_everyone()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the averaged weights replace the current ones."""
        if self.average is None:
            yield
            return
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)


def _export(stage: Stage, base: Path, model: Path, spec: TrainSpec) -> None:
    """Write `model`: a copy of the pipeline folder `base` with the trained part in it."""
    # Under another name until it is complete. FINGERPRINT and the model card belong to the base's weights.
    partial = model.with_name(".tmp-model")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(base, partial, ignore=shutil.ignore_patterns(stage.part, "FINGERPRINT", "*.md"))
    part: Any = copy.deepcopy(stage.export())
    for parameter in part.parameters():
        parameter.data = parameter.data.to(DTYPES[spec.export_dtype]).contiguous()
    part.save_pretrained(str(partial / stage.part), safe_serialization=True)
    # safetensors writes files that only their owner may read
    for weights in (partial / stage.part).glob("*.safetensors"):
        shutil.copymode(partial / stage.part / "config.json", weights)
    shutil.rmtree(model, ignore_errors=True)
    os.replace(partial, model)
