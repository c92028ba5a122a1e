"""network_speed.py [--wall N] [--only WORD,...] NETWORK_RUNNER [MODEL.onnx BATCH]...: inference against ONNX Runtime and
against PyTorch (eager and compile, channels_last, fp32 and bf16) where the file is named after a torchvision network or
resnet20. Interleaved rounds, the best of all. On one thread in processor time (for busy machines); with --wall on N
threads in wall time. --only: the rows whose names hold one of the words, e.g. --only onnxruntime,ternion. Without
models: the papers' networks from TERNION_SHARED and TERNION_EXPORTS, batch 1 and 64."""
import glob
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime

THREADS, ONLY, clock = 1, [""], time.process_time
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", TERNION_CPU_TIME="1")
ROUNDS = 3
NETWORKS = ("resnet20", "resnet18", "resnet50", "vgg16_bn", "densenet121")


def best_of(run, repeat):
    best = 1e9
    for _ in range(repeat):
        start = clock()
        run()
        best = min(best, 1e3 * (clock() - start))
    return best


def wanted(label):
    return any(word in label for word in ONLY)


def ours(runner, path, batch, mode):
    def measure(repeat):
        done = subprocess.run([runner, path, str(batch), "-", "-", mode, "", str(repeat)], capture_output=True,
                              text=True, env=ENVIRONMENT)
        found = re.search(r"best ([\d.]+)", done.stdout)
        return float(found.group(1)) if found else 1e9
    return measure


def runtime(path, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: x}
    session.run(None, feeds)
    return lambda repeat: best_of(lambda: session.run(None, feeds), repeat)


def torch_network(name):
    if name == "resnet20":
        sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "network"))
        import autograd
        return autograd.ResNet20().eval()
    import torchvision
    return torchvision.models.get_model(name, weights=None).eval()


def pytorch(name, x):
    """label -> measure of a PyTorch network of that name; {} when there is none."""
    try:
        import torch
        net = torch_network(name)
    except (ImportError, ValueError, SystemExit):
        return {}
    torch.set_num_threads(THREADS)
    net = net.to(memory_format=torch.channels_last)
    x = torch.from_numpy(x).to(memory_format=torch.channels_last)
    found = {}
    for mode in ("eager", "compile"):
        for kind in ("fp32", "bf16"):
            label = f"PyTorch {mode} {kind}"
            if not wanted(label):
                continue
            torch._dynamo.reset()
            made = torch.compile(net, dynamic=False) if mode == "compile" else net

            def run(made=made, kind=kind):
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
                    made(x)
            try:
                run()
            except Exception as error:  # torch.compile needs a working C++ toolchain
                print(f"  {name}: {label} does not run: {type(error).__name__}")
                continue
            found[label] = lambda repeat, run=run: best_of(run, repeat)
    return found


def inference(runner, path, batch):
    model = onnx.load(path, load_external_data=False)
    constants = {i.name for i in model.graph.initializer}
    fed = [i for i in model.graph.input if i.name not in constants][0]
    dims = [d.dim_value for d in fed.type.tensor_type.shape.dim]
    dims = [batch, dims[1]] + [d or 224 for d in dims[2:]]
    x = np.random.default_rng(1).standard_normal(dims).astype(np.float32)
    subjects = {"ternion fp32": ours(runner, path, batch, "fusion"), "ternion bf16": ours(runner, path, batch, "bf16")}
    if wanted("onnxruntime fp32"):
        subjects["onnxruntime fp32"] = runtime(path, x)
    subjects.update(pytorch(os.path.basename(path).split("-")[0], x))
    best, repeat = {}, 1
    for _ in range(ROUNDS):
        for label, measure in subjects.items():
            best[label] = min(best.get(label, 1e9), measure(repeat))
        repeat = int(min(30, max(1, 600 / best["ternion fp32"])))
    print(f"{os.path.basename(path)} batch {batch}:", flush=True)
    for label, milliseconds in best.items():
        peer = best["ternion " + label.split()[-1]]
        print(f"  {label:24} {milliseconds:9.2f} ms {1e3 * batch / milliseconds:8.1f} images/s"
              f"  {milliseconds / peer:5.2f} x ours", flush=True)


def papers():
    found = []
    for name in NETWORKS:
        files = glob.glob(os.path.join(os.environ.get("TERNION_SHARED", "?"), "models", name + "-cifar10.onnx"))
        files += glob.glob(os.path.join(os.environ.get("TERNION_EXPORTS", "?"), name + "-classic13-dynamic.onnx"))
        found += [(path, batch) for path in files[:1] for batch in (1, 64)]
    return found


def main():
    global THREADS, ONLY, clock
    while sys.argv[1].startswith("--"):
        option, value = sys.argv[1:3]
        del sys.argv[1:3]
        if option == "--only":
            ONLY = value.split(",")
        else:
            THREADS, clock = int(value), time.perf_counter
            ENVIRONMENT.update(OMP_NUM_THREADS=value)
            ENVIRONMENT.pop("TERNION_CPU_TIME", None)
    runner = sys.argv[1]
    pairs = [(sys.argv[i], int(sys.argv[i + 1])) for i in range(2, len(sys.argv) - 1, 2)] or papers()
    for path, batch in pairs:
        inference(runner, path, batch)
    return 0 if pairs else 77


if __name__ == "__main__":
    sys.exit(main())
