"""hostile_operators.py OPERATOR_RUNNER [COUNT [SEED]]: one-node models with absurd attributes, inputs
and shapes, run and differentiated: an error or a result, never a crash."""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "onnx_io" / "ops"))
import hostile_nodes  # noqa: E402
import single_node  # noqa: E402
from device_operators import GENERATORS, build, variable  # noqa: E402


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("TERNION_SEED") or np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}", flush=True)
    rng = np.random.default_rng(seed)
    failures = refused = ran = 0
    for number in range(count):
        case = GENERATORS[number % len(GENERATORS)](rng, int(rng.integers(7, 26)))
        if case is None:
            continue
        fed = {i for i, x in enumerate(case.inputs) if x is not None and variable(case, i, rng)}
        model = build(case, fed)
        for _ in range(int(rng.integers(1, 3))):
            hostile_nodes.spoil(rng, model)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(model.SerializeToString())
            file.flush()
            try:
                done = subprocess.run([program, file.name, "-", "hostile"], capture_output=True,
                                      text=True, timeout=120)
                code, message = done.returncode, done.stderr
            except subprocess.TimeoutExpired:
                code, message = -1, "hung"
        refused += code > 1
        ran += code == 0
        if code < 0 or code == 1 or code > 9 or "runtime error" in message:
            failures += 1
            print(f"exit {code}: {message[-3000:]}")
            print(helper.printable_graph(model.graph)[:1500], flush=True)
    print(f"{ran} ran, {refused} refused, {failures} crashed")
    return failures > 0 or refused == 0 or ran == 0


if __name__ == "__main__":
    sys.exit(main())
