"""`llmsim calibrations`: list what is shipped, show one with the source of every number, import measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmsim.cli.console import warn
from llmsim.cli.groups import OnceGroup
from llmsim.cli.options import Json
from llmsim.errors import ConfigError


class _Group(OnceGroup):
    """`llmsim calibrations NAME` is `llmsim calibrations show NAME`: a name has a slash or ends in .json."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run and its arguments."""
        if args and args[0] not in self.commands and ("/" in args[0] or args[0].endswith(".json")):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="calibrations",
    help="List and show what batches cost on which device, and make a calibration of measurements.",
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str | None, typer.Option("--device", help="Only those of this device.")]


@app.callback()
def calibrations(ctx: typer.Context, device: Device = None, as_json: Json = False) -> None:
    """List and show what batches cost on which device, and make a calibration of measurements."""
    if ctx.invoked_subcommand is None:
        list_(device, as_json)
    elif device is not None or as_json:
        raise typer.BadParameter(f"put --device and --json after {ctx.invoked_subcommand!r}")


@app.command(name="list")
def list_(device: Device = None, as_json: Json = False) -> None:
    """List the shipped calibrations: form, KV blocks, longest sequence, held-out error, source."""
    from llmsim.costs.calibration_list import list_text, listed, shipped

    found = shipped(device)
    print(json.dumps(listed(found), indent=2, ensure_ascii=False) if as_json else list_text(found))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="device/model, or a file that ends in .json.")],
    as_json: Json = False,
) -> None:
    """Show a calibration: where each number is from, the terms with units, what batches cost, KV, limits, errors."""
    from llmsim.costs.calibration import load_calibration
    from llmsim.costs.calibration_text import calibration_text

    calibration = load_calibration(name)
    print(calibration.to_json().rstrip("\n") if as_json else calibration_text(calibration))


@app.command(name="import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Measurements: a file, a folder (kernels), or what files' names share."),
    ],
    source: Annotated[str, typer.Option("--from", help="What they are: vllm-forward, layer-profile or kernels.")],
    device: Annotated[str, typer.Option(help="What the calibration calls the device: h100, l40s, ...")],
    model: Annotated[str, typer.Option(help="A shipped shape (llama-3-8b, ...), a config.json, or another name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write; ends in .json.")],
    tp: Annotated[int, typer.Option(help="Cards that share the model (tensor parallelism).")] = 1,
    num_blocks: Annotated[
        int | None, typer.Option(help="KV blocks that the engine found room for; else a memory plan of a known card.")
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens of a KV block.")] = 16,
    block_bytes: Annotated[
        int | None, typer.Option(help="Bytes of a KV block on a card; else those of the shape in bf16.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest sequence; else the shape's own.")] = None,
    host_us: Annotated[
        float | None, typer.Option(help="Microseconds an iteration that the measurements leave out.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Engine whose terms are added: vllm-0.19, ...")] = None,
    like: Annotated[
        str | None, typer.Option(help="kernels: a layer profile that tells what decodes cost beside prompts.")
    ] = None,
    all_reduce: Annotated[
        str | None, typer.Option(help="layer-profile with --tp: the table of all-reduces (Parquet).")
    ] = None,
    checked: Annotated[
        str | None, typer.Option(help="The run of a server that it was held against, and how close it came.")
    ] = None,
) -> None:
    """Make a calibration of measurements that another tool took (docs/calibrations.md says which)."""
    from llmsim.calibrate.importers.options import ImportOptions
    from llmsim.calibrate.importers.registry import importer_named
    from llmsim.costs.calibration import save

    importer = importer_named(source)
    if out.suffix != ".json":
        raise ConfigError(f"--out must end in .json, by which a calibration's file is known, but got {str(out)!r}")
    options = ImportOptions(
        device=device, model=model, tp=tp, num_blocks=num_blocks, block_size=block_size, block_bytes=block_bytes,
        max_model_len=max_model_len, host_us=host_us, engine=engine, like=like, all_reduce=all_reduce, checked=checked,
    )  # fmt: skip
    calibration = importer(path, options)
    save(calibration, out)
    for note in calibration.provenance.notes:
        warn(f"note: {note}")
    held_out = calibration.errors.held_out
    error = "" if held_out is None else f", held-out error {held_out.mape_pct:.2f} % (worst {held_out.max_pct:.2f} %)"
    print(f"{calibration.name}: {calibration.batch_time.form}{error}\ncalibration {out}")
    print(f"\nnext: llmsim calibrations show {out}, llmsim simulate --calibration {out} ...")
