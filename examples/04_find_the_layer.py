"""A scale that is 64 times too large ruins a network: the per-layer results name the layer."""

from insitu import deploy
from insitu.report.diagnose import broken_layer
from insitu.tasks.registry import calibration_data, evaluation_data, find_task


def main() -> None:
    task = find_task("kws")
    data = {name: rows[:100] for name, rows in evaluation_data(task).items()}
    good = deploy(task.model, "dcim-28nm", data=data, calib=calibration_data(task))
    victim = next(n for n in good.captured.nodes if n.name == "conv3")
    plan = good.plan.with_output_scale(victim.output, 64.0)
    bad = deploy(task.model, "dcim-28nm", data=data, calib=calibration_data(task), plan=plan)
    for d, words in ((good, "as planned"), (bad, "with one scale wrong")):
        print(f"{words}: SQNR {d.metrics['sqnr_db'].value:.1f} dB, broken layer: {broken_layer(d.result.layers)}")


if __name__ == "__main__":
    main()
