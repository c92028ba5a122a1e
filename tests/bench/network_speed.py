"""network_speed.py NETWORK_RUNNER [MODEL.onnx BATCH]...: inference against ONNX Runtime, interleaved, on
one thread, in processor time (for busy machines), the best of the repetitions. Without models: the
papers' networks from TERNION_EXPORTS, batch 1 and 8."""
import glob
import os
import re
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime

ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", TERNION_CPU_TIME="1")


def inference(runner, path, batch, repeat=3):
    model = onnx.load(path, load_external_data=False)
    constants = {i.name for i in model.graph.initializer}
    fed = [i for i in model.graph.input if i.name not in constants][0]
    dims = [d.dim_value for d in fed.type.tensor_type.shape.dim]
    dims = [batch, dims[1]] + [d or 224 for d in dims[2:]]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal(dims).astype(np.float32)
    session.run(None, {fed.name: x})
    best = {"onnxruntime": 1e9, "fusion": 1e9, "bf16": 1e9}
    for _ in range(repeat):
        for _ in range(repeat):
            start = time.process_time()
            session.run(None, {fed.name: x})
            best["onnxruntime"] = min(best["onnxruntime"], 1e3 * (time.process_time() - start))
        for mode in ("fusion", "bf16"):
            done = subprocess.run([runner, path, str(batch), "-", "-", mode, "", str(repeat)],
                                  capture_output=True, text=True, env=ENVIRONMENT)
            found = re.search(r"best ([\d.]+)", done.stdout)
            if found:
                best[mode] = min(best[mode], float(found.group(1)))
    print(f"{os.path.basename(path)} batch {batch}: onnxruntime {best['onnxruntime']:.2f} ms, "
          f"ternion fp32 {best['fusion']:.2f} ms ({best['onnxruntime'] / best['fusion']:.2f}x), "
          f"bf16 {best['bf16']:.2f} ms", flush=True)


def main():
    runner = sys.argv[1]
    pairs = [(sys.argv[i], int(sys.argv[i + 1])) for i in range(2, len(sys.argv) - 1, 2)]
    if not pairs:
        if not os.environ.get("TERNION_EXPORTS"):
            return 77
        for family in ("resnet18", "resnet50", "densenet121", "squeezenet1_1", "vgg16"):
            found = sorted(glob.glob(os.path.join(os.environ["TERNION_EXPORTS"],
                                                  family + "*classic13-dynamic.onnx")))
            pairs += [(path, batch) for path in found for batch in (1, 8)]
    for path, batch in pairs:
        inference(runner, path, batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
