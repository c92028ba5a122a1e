"""whole_networks.py NETWORK_RUNNER: every model under TERNION_SHARED/models and TERNION_EXPORTS,
fused, unfused and with separate BN, against ONNX Runtime: 1e-4 relative. Exit 77 without models."""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime


def models():
    found = []
    if os.environ.get("TERNION_SHARED"):
        found += glob.glob(os.path.join(os.environ["TERNION_SHARED"], "models", "*.onnx"))
    if os.environ.get("TERNION_EXPORTS"):
        found += glob.glob(os.path.join(os.environ["TERNION_EXPORTS"], "*.onnx"))
    return sorted(found)


def check(program, path, folder):
    model = onnx.load(path, load_external_data=False)
    constants = {i.name for i in model.graph.initializer}
    fed = [i for i in model.graph.input if i.name not in constants][0]
    dims = [d.dim_value for d in fed.type.tensor_type.shape.dim]
    dims[0] = dims[0] or 2
    dims[1:] = [d or 224 for d in dims[1:]]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal(dims).astype(np.float32)
    want = session.run(None, {fed.name: x})[0]
    source, result = os.path.join(folder, "x"), os.path.join(folder, "y")
    x.tofile(source)
    worst = 0.0
    for mode in ("fusion", "nofusion", "separate"):
        done = subprocess.run([program, path, str(dims[0]), source, result, mode],
                              capture_output=True, text=True)
        if done.returncode:
            return f"{mode}: {done.stderr.strip()}", 0.0
        got = np.fromfile(result, np.float32).reshape(want.shape)
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return "" if worst < 1e-4 else "differs", worst


def main():
    failures, paths = 0, models()
    if not paths:
        return 77
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            message, worst = check(sys.argv[1], path, folder)
            failures += message != ""
            print(f"{os.path.basename(path)}: {worst:.2g} {message}", flush=True)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
