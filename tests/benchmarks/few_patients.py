"""What a few labeled patients bring to shipped weights: `gcnn train --init` on 5, 15 and 30 that these have not seen.

    python tests/benchmarks/few_patients.py DATA WORK [--init octahedral] [--patients 5,15,30] [--steps 200]
        [--learning-rates 4e-4] [--frozen 0,2]

DATA is the data that the weights were trained on; their header names the patients that they held out. Of these, the
first N by a hash of their names give their nodule cut-outs to training, for each N, and all beyond the largest N are
held out, with their cut-outs and labeled scans. The scans in DATA without labels of held-out patients give negatives.
The sets are nested, and the held-out patients are the same for every N. WORK holds links, caches and weights; a run
that is there is not repeated. Prints Markdown: the figures of the new weights and of their parent on the held-out
patients, with the 95 % interval of the difference, and the verdict of the command.
"""

import argparse
import hashlib
import shutil
from itertools import product
from pathlib import Path

from gcnn_cli.errors import InputError
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.weights import load_model
from gcnn_cli.training.parent import Parent
from gcnn_cli.training.recipe import read_recipe
from gcnn_cli.training.run import RunConfig, run_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--init", default="octahedral")
    parser.add_argument("--patients", default="5,15,30")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rates", default="4e-4")
    parser.add_argument("--frozen", default="0")
    arguments = parser.parse_args()
    parent = Parent(load_model(arguments.init))
    sizes = sorted(int(n) for n in arguments.patients.split(","))
    unseen, folder = unseen_data(arguments.data.resolve(), arguments.work, parent)
    if len(unseen) < 2 * sizes[-1]:
        raise SystemExit(f"only {len(unseen)} patients are held out of {arguments.init}; ask for fewer")
    held = unseen[sizes[-1] :]
    print(f"Held out: {len(held)} patients. {arguments.steps} steps of each network.\n")
    print("| patients | learning rate | frozen | figure | new | parent | difference | 95 % interval |")
    print("|---|---|---|---|---|---|---|---|")
    verdicts = []
    for rate, frozen, size in product(arguments.learning_rates.split(","), arguments.frozen.split(","), sizes):
        rest = unseen[size : sizes[-1]]  # in neither part: every size is measured on the same patients
        chosen = linked(folder, arguments.work / f"patients-{size}", skip=set(rest))
        recipe = read_recipe(
            None,
            {
                "train": {"steps": arguments.steps, "learning_rate": float(rate), "validate_every": arguments.steps},
                "split": {"hold_out": tuple(held), "share": 0.0},
                "init": {"frozen": int(frozen)},
            },
            parent,
        )
        out = arguments.work / f"{size}-{rate}-{frozen}.safetensors"
        found = []
        config = RunConfig((chosen,), out, recipe, arguments.work / "cache", resume=True, overwrite=True, parent=parent)
        run_training(config, compared=found.append)
        for row in found[0].rows() if found[0] else ():
            print(f"| {size} | {rate} | {frozen} | {' | '.join(row.values())} |", flush=True)
        verdicts.append(f"- {size} patients, {rate}, {frozen} frozen: {found[0].verdict() if found[0] else 'nothing'}")
    print("\n" + "\n".join(verdicts))


def unseen_data(data: Path, work: Path, parent: Parent) -> tuple[list[str], Path]:
    """Link what is of patients that the parent has not seen. Return these with cut-outs, in their order, and the links.

    Raises InputError for weights whose header does not name them.
    """
    held = set(map(str, parent.model.provenance.get("held_out_patients", ())))
    seen = parent.patients
    if not held or seen is None:
        raise InputError("the header of these weights does not name held-out patients")
    index = read_index([data])
    folder = work / "unseen"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nodules").mkdir(parents=True)
    for cutout in index.cutouts:
        if cutout.patient in held - seen:
            (folder / "nodules" / cutout.path.name).symlink_to(cutout.path)
    rows = []
    for scan in index.scans:
        if scan.patient in held - seen:
            link(scan.path, folder)
            rows += [(scan.name, mark) for mark in scan.nodules]
    lines = [f"{name},{','.join(f'{v:g}' for v in mark)}" for name, mark in rows]
    (folder / "annotations.csv").write_text("\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *lines]) + "\n")
    patients = {cutout.patient for cutout in index.cutouts} & (held - seen)
    patients -= {scan.patient for scan in index.scans}  # those with scans are all held out
    return sorted(patients, key=lambda name: hashlib.sha256(name.encode()).digest()), folder


def linked(source: Path, folder: Path, *, skip: set[str]) -> Path:
    """Return a folder with links to the data but for some patients' cut-outs."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nodules").mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "nodules":
            link(path.resolve(), folder)
    for path in (source / "nodules").iterdir():
        if not any(path.name.startswith(name) for name in skip):
            (folder / "nodules" / path.name).symlink_to(path.resolve())
    return folder


def link(path: Path, folder: Path) -> None:
    """Link a file with its companions, or every file of a folder: a search does not follow links to folders."""
    if path.is_dir():
        (folder / path.name).mkdir()
        for file in path.iterdir():
            (folder / path.name / file.name).symlink_to(file.resolve())
        return
    for file in path.parent.glob(f"{path.name.split('.')[0]}.*") if path.suffix == ".mhd" else (path,):
        (folder / file.name).symlink_to(file)


if __name__ == "__main__":
    main()
