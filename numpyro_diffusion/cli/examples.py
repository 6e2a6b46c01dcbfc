"""Command lines that run as they stand, shown at the end of each command's help.

Those that read `points.npy` take any array [n, *event_shape] of floating-point numbers of order one.
"""

PROGRAM = "numpyro-diffusion"
#: Arguments by command; the first of them in the order of a first hour.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "doctor": ("",),
    "demo": ("--output demo_output",),
    "sample": (
        "--model ring --num-chains 500 --output ring.npy",
        "--model ring --model bar --compose product --output product.npy",
        "--model large_box --model small_box --compose negation --alpha 0.5 --output hole.npy",
    ),
    "bench": ("--model ring --model bar --compose product",),
    "train": (
        "--data points.npy --output model.safetensors --checkpoint model.training",
        "--data points.npy --output score.safetensors --score --steps 4000",
    ),
    "check": ("--model model.safetensors --data points.npy --output report.png",),
    "distil": ("--model score.safetensors --data points.npy --output energy.safetensors --report",),
    "cubes": ("--output cubes.png", "--output one.png --num-cubes 1 --images 4"),
    "tapestry": ("--output canvas.png --side 2",),
    "scenes": (
        """--prompt '"a cube" AND "sand"' --model benchmarks/weights/captioned_scenes_32.safetensors --output s.png""",
    ),
    "flows": ("--output flows.png --side 16 --num-steps 1000",),
    "sculpt": ("--output sculpted.png",),
}


def lines(command: str) -> list[str]:
    """The examples of a command as they are typed."""
    return [f"{PROGRAM} {command} {arguments}".rstrip() for arguments in EXAMPLES[command]]


def epilog(commands: list[str]) -> str:
    """What click shows below the options: the examples of these commands, not wrapped."""
    shown = [line for command in commands for line in lines(command)]
    return "\b\n" + "\n".join(["Examples:" if len(shown) > 1 else "Example:", *(f"  {line}" for line in shown)])
