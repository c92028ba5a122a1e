"""network_speed.py [--wall N] NETWORK_RUNNER [MODEL.onnx BATCH]...: inference against ONNX Runtime, and against
PyTorch (eager and compile, channels_last, fp32 and bf16) where the file is named after a torchvision network;
interleaved, the best of the repetitions. On one thread in processor time (for busy machines); with --wall on N
threads in wall time. Without models: the papers' networks from TERNION_EXPORTS, batch 1 and 8."""
import glob
import os
import re
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime

THREADS, clock = 1, time.process_time
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", TERNION_CPU_TIME="1")


def pytorch(name, x, repeat):
    """Best milliseconds of a torchvision network, by way of running it; {} when there is none of that name."""
    try:
        import torch
        import torchvision
        net = torchvision.models.get_model(name, weights=None).eval()
    except (ImportError, ValueError):
        return {}
    torch.set_num_threads(THREADS)
    net = net.to(memory_format=torch.channels_last)
    x = torch.from_numpy(x).to(memory_format=torch.channels_last)
    times = {}
    for mode, run in (("eager", net), ("compile", torch.compile(net))):
        for kind in ("fp32", "bf16"):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
                try:
                    run(x)
                except Exception as error:  # torch.compile needs a working C++ toolchain
                    print(f"  {name}: {mode} {kind} does not run: {type(error).__name__}")
                    continue
                best = 1e9
                for _ in range(repeat):
                    start = clock()
                    run(x)
                    best = min(best, 1e3 * (clock() - start))
                times[f"{mode} {kind}"] = best
    return times


def inference(runner, path, batch, repeat=3):
    model = onnx.load(path, load_external_data=False)
    constants = {i.name for i in model.graph.initializer}
    fed = [i for i in model.graph.input if i.name not in constants][0]
    dims = [d.dim_value for d in fed.type.tensor_type.shape.dim]
    dims = [batch, dims[1]] + [d or 224 for d in dims[2:]]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal(dims).astype(np.float32)
    session.run(None, {fed.name: x})
    best = {"onnxruntime": 1e9, "fusion": 1e9, "bf16": 1e9}
    for _ in range(repeat):
        for _ in range(repeat):
            start = clock()
            session.run(None, {fed.name: x})
            best["onnxruntime"] = min(best["onnxruntime"], 1e3 * (clock() - start))
        for mode in ("fusion", "bf16"):
            done = subprocess.run([runner, path, str(batch), "-", "-", mode, "", str(repeat)],
                                  capture_output=True, text=True, env=ENVIRONMENT)
            found = re.search(r"best ([\d.]+)", done.stdout)
            if found:
                best[mode] = min(best[mode], float(found.group(1)))
    print(f"{os.path.basename(path)} batch {batch}: onnxruntime {best['onnxruntime']:.2f} ms, "
          f"ternion fp32 {best['fusion']:.2f} ms ({best['onnxruntime'] / best['fusion']:.2f}x), "
          f"bf16 {best['bf16']:.2f} ms", flush=True)
    for mode, milliseconds in pytorch(os.path.basename(path).split("-")[0], x, repeat).items():
        ours = best["bf16" if "bf16" in mode else "fusion"]
        print(f"  PyTorch {mode} {milliseconds:.2f} ms ({milliseconds / ours:.2f}x)", flush=True)


def main():
    global THREADS, clock
    if sys.argv[1] == "--wall":
        THREADS, clock = int(sys.argv[2]), time.perf_counter
        ENVIRONMENT.update(OMP_NUM_THREADS=str(THREADS))
        del ENVIRONMENT["TERNION_CPU_TIME"], sys.argv[1:3]
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
