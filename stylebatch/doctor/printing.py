"""Prints what `stylebatch doctor` found; returns the exit code: 0 no problem, 1 a problem of this machine, 2 of the model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from stylebatch.doctor.environment import Environment, inspect_machine
from stylebatch.doctor.findings import Finding
from stylebatch.doctor.model import BYTES, Diagnosis, Measure, diagnose
from stylebatch.errors import ManifestError
from stylebatch.manifest import YAML_SUFFIXES, load_spec
from stylebatch.models.model_section import ModelSpec, describe_model
from stylebatch.words import counted


def doctor_machine(variables: Mapping[str, str], *, as_json: bool) -> int:
    """Check this machine. `variables`: environment variables."""
    environment = inspect_machine(variables)
    _show(environment, environment_lines(environment), as_json=as_json)
    return 0 if environment.is_sound else 1


def doctor_model(
    model: str, options: Mapping[str, str], *, size: int | None, measure: Measure, as_json: bool
) -> int:
    """Check `model`, with other fields of `ModelSpec`."""
    diagnosis = diagnose(model_spec(model, options), size=size, measure=measure)
    _show(diagnosis, model_lines(diagnosis), as_json=as_json)
    return 0 if diagnosis.is_sound else 2


def _show(found: Environment | Diagnosis, lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found) | {"sound": found.is_sound}, indent=1))
    else:
        print("\n".join([*lines, *finding_lines(found.findings)]))


def model_spec(text: str, options: Mapping[str, str]) -> ModelSpec:
    """The model named by `text`: a short name, folder, file or hub id. Raises ManifestError if there is no such model."""
    if Path(text).suffix.lower() in YAML_SUFFIXES and os.path.exists(text):
        return _model_of_manifest(text, options)
    try:
        return describe_model(text, **options)
    except ValueError as error:
        raise ManifestError(f"{text}: {error}") from None


def _model_of_manifest(path: str, options: Mapping[str, str]) -> ModelSpec:
    """The section `model` of a manifest, with all that it adds. Raises ManifestError for options beside it."""
    if options:
        raise ManifestError(
            f"--{next(iter(options))}: accepted beside a manifest: none; next: set it under `model` of {path}"
        )
    return load_spec(path).model


def finding_lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    yield ""
    if not findings:
        yield "No problems found."
    yield from (finding.line() for finding in findings)


def environment_lines(found: Environment) -> Iterator[str]:
    yield f"stylebatch {found.stylebatch}, Python {found.python}, {found.system}"
    for device in found.devices:
        yield f"  {device.kind:<6}{device.name}: {_bytes(device.total_bytes)}, {_bytes(device.free_bytes)} free"
    yield f"  threads  {found.threads} of torch in this process"
    yield f"  ray      {found.ray}"
    yield "Libraries                installed       tested        required"
    for library in found.libraries:
        installed = library.installed or "missing"
        yield f"  {library.name:<21}  {installed:<14}  {library.tested:<12}  {library.required or '-'}"
    yield "Disk                     free"
    for place in found.places:
        yield f"  {place.use:<21}  {_bytes(place.free_bytes):<14}  {place.path}"


def model_lines(found: Diagnosis) -> Iterator[str]:
    yield found.model
    if found.layout is None:
        return
    published = f", the network of {' and '.join(found.published)}" if found.published else ""
    yield f"  family      {found.family}{published}"
    yield f"  predicts    {found.prediction_type}"
    yield f"  size        {found.native_size} px native; accepted: multiples of {found.size_multiple}"
    counts = (
        f"{part} {_millions(count) if count else 'missing'}"
        for part, count in found.parameters.items()
    )
    total = sum(found.parameters.values())
    yield f"  parameters  {_millions(total)}: {', '.join(counts)}"
    if all(found.parameters.values()):
        both = (f"{_bytes(total * BYTES[name])} in {name}" for name in ("float16", "float32"))
        yield f"  weights     {', '.join(both)}; {found.dtype} here"
    yield ""
    yield f"Self-attention sites of the decoder at {found.size} px"
    yield "  site   cells        channels  heads  layers"
    for shape in found.sites:
        cells = f"{shape.side} x {shape.side}"
        yield f"  {shape.site:>4}   {cells:<11}  {shape.channels:>8}  {shape.heads:>5}  {shape.layers:>6}"
    yield ""
    yield f"{f'Memory at {found.size} px':<27} {'float16':>9}    {'float32':>9}"
    yield _row("one row of an evaluation", found.activations)
    sites = f"sites {found.styled[0]}..{found.styled[-1]}" if found.styled else "no site"
    yield f"  one style, {counted(found.steps, 'step')}, {sites}"
    for codec, sizes in found.feature_bytes.items():
        yield _row(f"  codec {codec}", sizes)
    yield ""
    if found.measured is None:
        yield "Speed: not measured"
        return
    how = found.measured
    yield (
        f"Speed: {_rate(how.evaluation_s)} on {how.device} in {how.dtype}, {how.threads} "
        f"thread{'s' if how.threads > 1 else ''}; loaded in {how.load_s:.1f} s. A StyleID sample of {found.steps} steps "
        f"takes {found.steps - 1} evaluations and its share of inversions"
    )
    if how.profile:
        yield f"`stylebatch plan` tells hours by it: {how.profile}"


def _row(name: str, sizes: Mapping[str, int]) -> str:
    return f"  {name:<25} {_bytes(sizes['float16']):>9}    {_bytes(sizes['float32']):>9}"


def _rate(seconds: float) -> str:
    return f"{1 / seconds:.3g} evaluations/s" if seconds else "no time at all"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _bytes(count: int) -> str:
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    # `.3g` prints 999.5 and more as 1e+03
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {units[power]}"
