"""`gcnn phantom`."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, app
from gcnn_cli.errors import UsageError


@app.command(epilog=EXIT_CODES)
def phantom(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the vessels, nodules and noise.")] = 7,
    name: Annotated[str, typer.Option(help="Name of the scan, without an ending.")] = "thorax",
    nodules: Annotated[int, typer.Option(min=0, help="Number of nodules; the kinds take turns.")] = 9,
    dicom: Annotated[bool, typer.Option("--dicom", help="Write a DICOM series too.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a synthetic chest CT with nodules at known places."""
    from gcnn_cli.phantom import PhantomConfig, make_phantom, write_phantom
    from gcnn_cli.phantom.sample import check_phantom_paths

    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"the name of a scan must be that of a file without a folder, got {name!r}")
    check_phantom_paths(out, name=name, dicom=dicom, overwrite=overwrite)  # before the seconds it takes to make one
    made = make_phantom(PhantomConfig(seed=seed, nodules=nodules))
    write_phantom(made, out, name=name, dicom=dicom, overwrite=overwrite)
    typer.echo(f"{out}: a scan with {len(made.nodules)} nodules and its truth in annotations.csv", err=True)
