"""What a better converter would buy: the same network on two variants of one chip."""

from insitu import deploy, load_chip
from insitu.tasks.registry import calibration_data, evaluation_data, find_task


def main() -> None:
    task = find_task("kws")
    data = {name: rows[:300] for name, rows in evaluation_data(task).items()}
    for noise in ("0.8", "8.0"):
        chip = load_chip("wtm2101", overrides=[f"physics.adc_noise.sd={noise}"])
        d = deploy(task.model, chip, data=data, calib=calibration_data(task), instances=2)
        print(f"converter noise {noise} codes a read: accuracy {d.metrics['accuracy_chip_mean'].value:.3f}")


if __name__ == "__main__":
    main()
