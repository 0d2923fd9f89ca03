"""Compile once, save the program, load it elsewhere and feed it: codes in, codes out."""

import tempfile
from pathlib import Path

import numpy as np

from insitu import Session, deploy, load_program
from insitu.isa.program import save_program
from insitu.tasks.registry import calibration_data, evaluation_data, find_task


def main() -> None:
    task = find_task("kws")
    data = {name: rows[:20] for name, rows in evaluation_data(task).items()}
    program = deploy(task.model, "dcim-28nm", calib=calibration_data(task)).program
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kws.insitu"
        save_program(program, path)
        session = Session(load_program(path))
    scores = session.run(data["x"])[session.outputs[0]]
    right = (scores.reshape(len(scores), -1).argmax(axis=1) == np.asarray(data["y"])).sum()
    print(f"{right} of {len(scores)} right")


if __name__ == "__main__":
    main()
