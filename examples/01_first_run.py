"""A network on a chip in one call: accuracy, speed, energy, and the proof that the integers are right."""

from insitu import deploy
from insitu.tasks.registry import calibration_data, evaluation_data, find_task


def main() -> None:
    task = find_task("kws")  # ten keywords; ships with the package
    data = {name: rows[:200] for name, rows in evaluation_data(task).items()}
    d = deploy(task.model, "wtm2101", data=data, calib=calibration_data(task), instances=2)

    exact = d.result.bit_exact
    print(f"same numbers: {exact.mismatches} mismatches of {exact.checked_values}")
    for name in ("accuracy_float", "accuracy_quantized", "accuracy_chip_mean", "latency_s", "energy_j"):
        metric = d.metrics[name]
        print(f"{name}: {metric.value:.4g} {metric.unit} ({metric.source})")


if __name__ == "__main__":
    main()
