"""The command tree: names, options and help.  What a command does is imported when it runs, so `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

app = typer.Typer(
    name="insitu",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="an .onnx or .graph file, a task (task:kws), a language model's folder, hf:OWNER/NAME or shape:NAME",
    ),
]
ProgramFile = Annotated[str, typer.Argument(metavar="P.insitu", help="a program, as `insitu compile` writes it")]
ChipOption = Annotated[
    str, typer.Option("--chip", metavar="CHIP", help="a preset (`insitu chips` lists them) or a YAML file")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="F.npz", help="samples: `x`, or one array per input; `y` labels if any")
]
Calib = Annotated[
    str | None,
    typer.Option("--calib", metavar="F.npz", help="inputs that set the ranges; without it a part of --data does"),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="seed of everything random")]
Instances = Annotated[
    int, typer.Option("--instances", metavar="N", min=1, max=10_000, help="simulated chips, each with its own cells")
]
Physics = Annotated[
    str,
    typer.Option(
        "--physics", metavar="EFFECTS", help="full, ideal, or effects with commas (programming_noise,read_noise)"
    ),
]
Times = Annotated[
    str,
    typer.Option("--time", metavar="TIMES", help="times after programming, with commas: 0s,1h,1d,1y"),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="change one value of the chip (macro.readout.bits=6)"),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,1,64,64", help="sizes of an input that the model leaves open"),
]
MaxChips = Annotated[
    int, typer.Option("--max-chips", metavar="N", min=1, help="chips to spread over where one cannot hold the network")
]
PlanFile = Annotated[
    str | None,
    typer.Option(
        "--plan",
        metavar="F.json",
        help="a quantization plan of a run folder, or a vendor network's .protobuf",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="F.yaml", help="precision transforms by layer (copies, reads, signed inputs ...)"
    ),
]
Observer = Annotated[
    str,
    typer.Option(
        "--observer",
        metavar="NAME",
        help="how ranges are chosen: mse, minmax, percentile, entropy",
    ),
]
Ranges = Annotated[
    str,
    typer.Option("--ranges", metavar="NAME", help="of weights: by what codes err, or cells too"),
]
Rounding = Annotated[str, typer.Option("--rounding", metavar="NAME", help="of weights: second-order (GPTQ) or nearest")]
Objective = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="latency, throughput, or cells: the fewest, nothing held more than once",
    ),
]
Search = Annotated[
    float,
    typer.Option(
        "--search",
        metavar="SECONDS",
        min=0,
        max=3600,
        help='seconds that a solver looks for better places; 0: none (needs "insitu[solver]")',
    ),
]
Facts = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=NUMBER", help="replace a price or an assumption (electricity_generic=0.3)"),
]
Versus = Annotated[
    list[str] | None,
    typer.Option(
        "--vs", metavar="MACHINE", help="a conventional machine to set beside: h100, 8xh100, pi5 or a YAML file"
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend", metavar="NAME", help='what computes array products: cpu, cuda or torch (they need "insitu[gpu]")'
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else, on standard output")]


def _version(wanted: bool) -> None:
    if wanted:
        import insitu
        from insitu.cli import console

        console.put(f"insitu {insitu.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def insitu_(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Take a network to a compute-in-memory chip: what it computes, how accurately, how fast, at what energy."""
    if context.invoked_subcommand is None:
        from insitu.cli import console

        console.put(context.get_help())


@app.command()
def run(
    typed: typer.Context,
    model: Model,
    chip: ChipOption,
    data: Data = None,
    calib: Calib = None,
    samples: Annotated[str, typer.Option("--samples", metavar="N/all", help="samples to evaluate")] = "all",
    physics: Physics = "full",
    instances: Instances = 8,
    time: Times = "0s",
    max_chips: MaxChips = 1,
    objective: Objective = "latency",
    search: Search = 0.0,
    optimize: Annotated[
        str,
        typer.Option("--optimize", metavar="NAME", help="accuracy: search copies, reads and ranges layer by layer"),
    ] = "",
    target: Annotated[
        float,
        typer.Option(
            "--target",
            metavar="SHARE",
            help="of --optimize: the cheapest plan that closes this share of the gap to an ideal chip; 1: the best",
        ),
    ] = 0.9,
    observer: Observer = "mse",
    rounding: Rounding = "second-order",
    ranges: Ranges = "codes",
    seed: Seed = 0,
    check: Annotated[
        str | None,
        typer.Option(
            "--check", metavar="N/all", help="samples compared bit by bit; by default as many as make 100,000 values"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="most the run may take, such as 2GiB: samples run in blocks, same results"
        ),
    ] = None,
    backend: BackendOption = "cpu",
    calibration: Annotated[
        bool, typer.Option("--calibration/--no-calibration", help="the chip's own calibration after programming")
    ] = True,
    set_: Sets = None,
    shape: Shapes = None,
    plan: PlanFile = None,
    precision: PrecisionOption = None,
    vs: Versus = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="the run folder; by default one in insitu-runs/")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="TEXT", help='a language model goes on from here ("ids:1,403": tokens); again: one more'
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="tokens to generate")] = 64,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", min=0.0, max=10.0, help="0: the likeliest token; else drawn")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", metavar="P", min=0.01, max=1.0, help="draw among the likeliest of this share")
    ] = 1.0,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", min=2, max=1 << 20, help="tokens that the caches hold (256; shapes: 2048)"
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=1 << 16, help="sequences at once, of a shape or in pages")
    ] = 1,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", metavar="N", min=1, max=1 << 20, help="tokens of a shape's prompt")
    ] = 512,
    weight_bits: Annotated[
        float, typer.Option("--weight-bits", metavar="N", min=1, max=16, help="bits of a shape's weight: 8, 4 ...")
    ] = 8,
    cache: Annotated[
        str,
        typer.Option(
            "--kv",
            "--kv-bits",
            "--cache-bits",
            metavar="TYPE",
            help="cached keys and values: fp16, int8, int4 ..., or bits",
        ),
    ] = "int8",
    requests: Annotated[
        str, typer.Option("--requests", metavar="N@RATE", help="requests that a shape serves: 200@4 comes 4 a second")
    ] = "",
    prompts_on: Annotated[
        str, typer.Option("--prompts-on", metavar="MACHINE", help="a machine that does the prompts of --requests")
    ] = "",
    tensor: Annotated[
        int, typer.Option("--tensor", metavar="N", min=0, max=4096, help="chips that share a layer of a shape; 0: few")
    ] = 0,
    page_tokens: Annotated[
        int, typer.Option("--page-tokens", metavar="N", min=1, max=1 << 20, help="tokens of a page of caches (16)")
    ] = 16,
    pool_pages: Annotated[
        int, typer.Option("--pool-pages", metavar="N", min=0, max=1 << 20, help="pages that prompts share; 0: enough")
    ] = 0,
    draft: Annotated[
        str, typer.Option("--draft", metavar="MODEL", help="a small model or shape that writes ahead of a large one")
    ] = "",
    draft_chip: Annotated[
        str, typer.Option("--draft-chip", metavar="CHIP", help="the small model's chip; by default that of --chip")
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="hf:OWNER/NAME from the local cache only, never from the network")
    ] = False,
    json: AsJson = False,
) -> int:
    """Take a model to a chip and back, and write a report."""
    from insitu.cli import run as command
    from insitu.cli.inputs import ModelInputs

    inputs = ModelInputs(
        model, chip, data=data, calib=calib, sets=set_, shapes=shape, plan=plan, precision=precision, seed=seed
    )
    request = command.Request(
        inputs, samples=samples, physics=physics, instances=instances, times=time, max_chips=max_chips,
        objective=objective, search=search, optimize=optimize, target=target, observer=observer, rounding=rounding,
        ranges=ranges, check=check, memory=memory, backend=backend, vs=tuple(vs or ()),
        calibrated=calibration, out=out,
        json=json,
    )  # fmt: skip
    from insitu.cli.kinds import cache_width, given, refuse_idle

    if model.startswith("shape:"):
        from insitu.cli import shape as shapes
        from insitu.flow.shape import BESIDE, ShapeOptions

        refuse_idle(typed, model, "a shape")
        limit = max_chips if given(typed, "max_chips") else 0
        options = ShapeOptions(
            context or 2048, prompt_tokens, batch, weight_bits, cache_width(cache), limit, tuple(vs or BESIDE),
            requests, tokens, prompts_on, draft, seed=seed, page=page_tokens, tensor=tensor,
        )  # fmt: skip
        return shapes.run(request, options)
    from insitu.frontend.load import is_language_model

    if is_language_model(model):
        from insitu.cli.language import Prompt, run_language

        refuse_idle(typed, model, "a language model")
        first, *others = prompt or [""]
        paged = bool(others) or any(given(typed, name) for name in ("page_tokens", "pool_pages", "batch"))
        asked = Prompt(
            first, tokens, temperature, top_p, context or 256, offline, cache_width(cache), draft, draft_chip,
            tuple(others), page_tokens if paged else 0, pool_pages, batch if given(typed, "batch") else 0,
        )  # fmt: skip
        return run_language(request, asked)
    refuse_idle(typed, model, "a network")
    return command.run(request)


@app.command()
def compile(
    model: Model,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="F", help="the file to write: .insitu, or .graph with --stop-after")
    ],
    chip: Annotated[
        str | None,
        typer.Option("--chip", metavar="CHIP", help="a preset or a YAML file; not needed to stop after captured"),
    ] = None,
    data: Data = None,
    calib: Calib = None,
    stop_after: Annotated[
        str | None,
        typer.Option("--stop-after", metavar="STAGE", help="captured, quantized or placed: write that graph"),
    ] = None,
    max_chips: MaxChips = 1,
    objective: Objective = "latency",
    search: Search = 0.0,
    observer: Observer = "mse",
    rounding: Rounding = "second-order",
    ranges: Ranges = "codes",
    seed: Seed = 0,
    set_: Sets = None,
    shape: Shapes = None,
    plan: PlanFile = None,
    precision: PrecisionOption = None,
    layers: Annotated[
        str | None,
        typer.Option("--layers", metavar="layers.txt", help="fix the placement: lines x0, x1, y0, y1, bias0, bias1, G"),
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option("--map", metavar="DIR", help="write layers.txt, map.csv and conductances.csv for a real array"),
    ] = None,
    json: AsJson = False,
) -> int:
    """Compile a model to a program, or to the graph of a stage."""
    from insitu.cli import compile as command
    from insitu.cli.inputs import ModelInputs

    inputs = ModelInputs(
        model, chip, data=data, calib=calib, sets=set_, shapes=shape, plan=plan, precision=precision, seed=seed
    )
    return command.run(
        inputs, output, stop_after=stop_after, max_chips=max_chips, objective=objective, search=search, json=json,
        layers=layers, map_=map_, observer=observer, rounding=rounding, ranges=ranges,
    )  # fmt: skip


@app.command()
def simulate(
    program: ProgramFile,
    data: Annotated[
        str, typer.Option("--data", metavar="F.npz", help="samples: `x`, or one array per input; `y` labels if any")
    ],
    outputs: Annotated[
        str | None, typer.Option("--outputs", metavar="Y.npz", help="write each output, and its integers as NAME__int")
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="T.json", help="write the timeline of one inference, for Perfetto or Chrome"),
    ] = None,
    dump: Annotated[
        str | None,
        typer.Option("--dump", metavar="DIR", help="write what each array layer reads and gives, one line a sample"),
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="the samples are steps of one stream: states go on from one to the next")
    ] = False,
    physics: Physics = "ideal",
    instances: Annotated[
        int,
        typer.Option(
            "--instances",
            metavar="N",
            min=1,
            max=10_000,
            help="simulated chips; more than one add a leading axis to the outputs",
        ),
    ] = 1,
    time: Times = "0s",
    seed: Seed = 0,
    backend: BackendOption = "cpu",
    json: AsJson = False,
) -> int:
    """Run a program on samples."""
    from insitu.cli import simulate as command

    request = command.Request(
        program, data, outputs=outputs, trace=trace, dump=dump, steps=steps, physics=physics, instances=instances,
        times=time, seed=seed, backend=backend, json=json,
    )  # fmt: skip
    return command.run(request)


@app.command()
def verify(
    program: ProgramFile,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=0, help="random samples; 0: as many as make 100,000 values")
    ] = 0,
    seed: Seed = 0,
    json: AsJson = False,
) -> int:
    """Check a program against its own graph, bit by bit."""
    from insitu.cli import verify as command

    return command.run(program, samples=samples, seed=seed, json=json)


@app.command()
def show(
    thing: Annotated[
        list[str],
        typer.Argument(
            metavar="THING",
            help="a preset, a chip, graph, model or program file, a run folder, a task, `schema chip`, `isa`",
        ),
    ],
    asm: Annotated[bool, typer.Option("--asm", help="print a program as assembly")] = False,
    out: Annotated[
        str | None, typer.Option("--out", metavar="F.svg", help="write a chip's floorplan as a drawing")
    ] = None,
    json: AsJson = False,
) -> int:
    """Look at a thing as text."""
    from insitu.cli import show as command

    return command.run(thing, asm=asm, json=json, out=out)


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a chip's YAML, an .onnx, a .graph or an .insitu file")],
    json: AsJson = False,
) -> int:
    """Check a file and name every fault with its line."""
    from insitu.cli import check as command

    return command.run(file, json=json)


@app.command()
def chips(
    copy: Annotated[
        tuple[str, str] | None,
        typer.Option("--copy", metavar="NAME FILE", help="copy a preset to a YAML file of yours"),
    ] = None,
    json: AsJson = False,
) -> int:
    """List the chips that ship, or copy one."""
    from insitu.cli import chips as command

    return command.run(copy, json=json)


@app.command()
def fit(
    table: Annotated[
        str, typer.Argument(metavar="F.csv", help="measurements: target, measured and, if known, time and cell")
    ],
    like: Annotated[
        str, typer.Option("--like", metavar="CELL", help="a cell of the library whose area, voltages and the rest stay")
    ] = "reram-1t1r-2b",
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="of the cell; else the file's")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="F.yaml", help="where the cell is written")] = None,
    json: AsJson = False,
) -> int:
    """Turn a table of measured levels into a cell, and say how good the fit is."""
    from insitu.cli import fit as command

    return command.run(table, like=like, name=name, out=out, json=json)


@app.command()
def validate(
    chip: Annotated[str | None, typer.Option("--chip", metavar="F.yaml", help="a chip of yours")] = None,
    published: Annotated[
        str | None, typer.Option("--published", metavar="F.yaml", help="its published figures; enter no fit")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", metavar="F.yaml", help="measured language-model inference, one row a measurement"),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="F.html", help="a page with the scatter plot")] = None,
    json: AsJson = False,
) -> int:
    """Hold the cost models against published silicon, or (--llm) against measured language-model inference."""
    from insitu.cli import validate as command

    if llm is not None:
        return command.run_language(llm, json=json)
    return command.run(chip, published, out, json=json)


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="an .onnx or .graph file, a task, or shape:llama-3-8b")
    ] = None,
    requirements: Annotated[
        str | None, typer.Option("--requirements", metavar="F.yaml", help="what it must meet (--init writes one)")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME", help="a place's: earbuds, phone, car, cloud ...")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="inferences or tokens a second")] = None,
    latency: Annotated[str | None, typer.Option("--latency", metavar="TIME", help="of one inference: 20ms")] = None,
    power: Annotated[str | None, typer.Option("--power", metavar="POWER", help="mean, at that rate: 5mW")] = None,
    price: Annotated[float | None, typer.Option("--price", metavar="USD", help="of the chips or the machine")] = None,
    battery: Annotated[float | None, typer.Option("--battery", metavar="WH", help="watt-hours of one charge")] = None,
    hours: Annotated[float | None, typer.Option("--hours", metavar="H", help="that a charge must last")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", help="inferences a machine may take together")
    ] = None,
    prefer: Annotated[str | None, typer.Option("--prefer", metavar="WHAT", help="energy, price or latency")] = None,
    system: Annotated[
        list[str] | None, typer.Option("--system", metavar="S", help="only these chips or machines (8xh100)")
    ] = None,
    vs: Versus = None,
    include: Annotated[
        str, typer.Option("--include", metavar="sold/all", help="what the recommendation may choose from")
    ] = "sold",
    ladder: Annotated[
        bool, typer.Option("--ladder", help="a family of NOR and NAND chips from 2 MB to 256 TB")
    ] = False,
    hybrid: Annotated[
        str | None, typer.Option("--hybrid", metavar="F.yaml", help="device, edge and cloud with links and queues")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="F", help="write a template of requirements and stop")
    ] = None,
    shape: Shapes = None,
    set_: Facts = None,
    json: AsJson = False,
) -> int:
    """Say which chip or machine should run a network, what binds, and what would change the answer."""
    from insitu.cli import plan as command

    given = {
        "rate": rate, "latency": latency, "power": power, "price_usd": price, "battery_wh": battery, "hours": hours,
        "prefer": prefer, "batch": batch,
    }  # fmt: skip
    request = command.Request(
        model, requirements, profile, given, tuple(system or ()), tuple(vs or ()), include, ladder, hybrid, init,
        tuple(shape or ()), tuple(set_ or ()), json,
    )  # fmt: skip
    return command.run(request)


@app.command()
def claims(
    set_: Facts = None,
    out: Annotated[str | None, typer.Option("--out", metavar="F.html", help="a page with plots and sliders")] = None,
    json: AsJson = False,
) -> int:
    """Say which of the field's standing claims hold, computed from their data."""
    from insitu.cli import claims as command

    return command.run(tuple(set_ or ()), out, json=json)


@app.command()
def tasks(json: AsJson = False) -> int:
    """List the tasks that ship."""
    from insitu.cli import tasks as command

    return command.run(json=json)


@app.command()
def doctor(json: AsJson = False) -> int:
    """Say what is installed, what is missing, and what works."""
    from insitu.cli import doctor as command

    return command.run(json=json)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="compile")],
    json: AsJson = False,
) -> int:
    """Run a benchmark and say whether its bar holds."""
    from insitu.cli import bench as command

    return command.run(name, json=json)


@app.command()
def demo(
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="the run folder; by default one in insitu-runs/")
    ] = None,
    json: AsJson = False,
) -> int:
    """Run the embedded keyword task on eight flash chips."""
    from insitu.cli import run as command
    from insitu.cli.inputs import ModelInputs

    return command.run(command.Request(ModelInputs("task:kws", "wtm2101"), out=out, json=json))


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command line; whatever goes wrong is raised."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("insitu", list(arguments)) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """The `insitu` command; returns its exit code."""
    from insitu.cli.environment import settle
    from insitu.cli.guard import guarded

    settle()
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: dispatch(given), given)


if __name__ == "__main__":
    sys.exit(main())
