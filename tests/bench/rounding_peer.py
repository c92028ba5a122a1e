"""AdaRound of aimet-onnx beside `ternion quantize`: same network, same images, same bits.

usage: rounding_peer.py TERNION [iterations [CASE..]]   CASE: 4:auto, 2:min_max, ...: bits and ternion's
method or aimet's scheme; default all   (TERNION_SHARED, TERNION_DATA; in an environment with
aimet-onnx). Weights of the inner convolutions of resnet20-cifar10 at 4 and 2 bits, one scale per
channel; stem, classifier and activations float; 256 training images, labels unread; accuracy of
both on the 1,017 test images in ONNX Runtime. Times are of the process (all threads) and of the
clock, with THREADS (environment; 2) threads.
"""
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort

TERNION = sys.argv[1]
ITERATIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 15000
MODEL = os.path.join(os.environ["TERNION_SHARED"], "models", "resnet20-cifar10.onnx")
DATA = os.path.join(os.environ["TERNION_DATA"], "cifar10")
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
SEED, SAMPLES, BATCH = 0, 256, 32
THREADS = os.environ.get("THREADS", "2")
CASES = sys.argv[3:] or [f"{bits}:{how}" for bits in (4, 2) for how in
                         ("auto", "adaround", "min_max", "tf_enhanced")]


def pixels(raw):
    return (raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255) - MEAN) / STD


def read(names):
    return np.concatenate([np.fromfile(os.path.join(DATA, n), np.uint8).reshape(-1, 3073) for n in names])


def accuracy(session, x, labels):
    name = session.get_inputs()[0].name
    z = np.concatenate([session.run(None, {name: x[i : i + 64]})[0] for i in range(0, len(x), 64)])
    return 100 * (z.argmax(1) == labels).mean()


def spent(who):
    use = resource.getrusage(who)
    return use.ru_utime + use.ru_stime


def ternion(folder, bits, method, x, labels):
    path = os.path.join(folder, "t.onnx")
    before, start = spent(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([TERNION, "quantize", MODEL, "-o", path, "-f", "-q", "--scheme", "fixed", "--bits", str(bits),
                    "--calibration-data", DATA, "--calibration-samples", str(SAMPLES), "--seed", str(SEED),
                    "--method", method, "--threads", THREADS], check=True, stdout=subprocess.DEVNULL)
    wall, cpu = time.monotonic() - start, spent(resource.RUSAGE_CHILDREN) - before
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    print(f"ternion --method {method}, {bits} bits: {accuracy(session, x, labels):.2f} %, {wall:.0f} s, "
          f"{cpu:.0f} s of processor", flush=True)


def keep_float(sim):
    """Activations, stem and classifier stay float, as ternion leaves them."""
    for name, quantizer in sim.qc_quantize_op_dict.items():
        inner = name in sim.param_names and not name.startswith(("conv1", "linear"))
        quantizer.enabled = quantizer.enabled and inner and "bias" not in name


def aimet(bits, images, x, labels, scheme):
    import aimet_onnx
    import torch
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

    torch.manual_seed(SEED)
    torch.set_num_threads(int(THREADS))
    start, before = time.monotonic(), spent(resource.RUSAGE_SELF)
    model = onnx.load(MODEL)
    name = model.graph.input[0].name
    fold_all_batch_norms_to_weight(model)
    inputs = [{name: images[i : i + BATCH]} for i in range(0, len(images), BATCH)]
    sim = aimet_onnx.QuantizationSimModel(model, param_type=f"int{bits}", activation_type=aimet_onnx.float16,
                                          quant_scheme=scheme, dummy_input=inputs[0],
                                          providers=["CPUExecutionProvider"])
    keep_float(sim)
    with aimet_onnx.compute_encodings(sim):
        for batch in inputs:
            sim.session.run(None, batch)
    on = [k for k, q in sim.qc_quantize_op_dict.items() if q.enabled]
    print(f"aimet-onnx {scheme}, {bits} bits: {len(on)} quantizers on, rounded "
          f"{accuracy(sim.session, x, labels):.2f} %", flush=True)
    aimet_onnx.apply_adaround(sim, inputs, num_iterations=ITERATIONS)
    wall, cpu = time.monotonic() - start, spent(resource.RUSAGE_SELF) - before
    print(f"aimet-onnx AdaRound {ITERATIONS} iterations, {scheme}, {bits} bits: "
          f"{accuracy(sim.session, x, labels):.2f} %, {wall:.0f} s, {cpu:.0f} s of processor", flush=True)


def main():
    test = read(["test_batch.bin"])
    train = read([f"data_batch_{i}.bin" for i in range(1, 6) if os.path.exists(os.path.join(DATA, f"data_batch_{i}.bin"))])
    x, labels = pixels(test), test[:, 0]
    with tempfile.TemporaryDirectory() as folder:
        drawn = os.path.join(folder, "drawn.txt")
        subprocess.run([TERNION, "evaluate", MODEL, "--data", DATA + ":train", "--limit", str(SAMPLES), "--seed",
                        str(SEED), "--predictions", drawn, "--preprocess", "cifar10"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = np.loadtxt(drawn, ndmin=2).astype(int)
        assert (train[rows[:, 0], 0] == rows[:, 1]).all() and len(rows) == SAMPLES
        images = pixels(train[rows[:, 0]])
        print(f"float: {accuracy(ort.InferenceSession(MODEL), x, labels):.2f} %", flush=True)
        for case in CASES:
            bits, how = case.split(":")
            if how in ("auto", "round", "cd", "gptq", "adaround"):
                ternion(folder, int(bits), how, x, labels)
            else:
                aimet(int(bits), images, x, labels, how)


main()
