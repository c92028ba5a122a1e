"""What quantizers of a page of code fail at, on trained networks: float and quantized accuracy side by
side, each file also run by ONNX Runtime.

- fully connected layers ternary per row at threshold mean:0.75
- min-max weights, biases and input at 16, 8 and 4 bits, first and last layer too
- activations of 8, 4 and 16 bits, with weights of 8 bits (form qdq) and ternary ones (int8-lut, lut)

usage: few_bit_accuracy.py TERNION    (TERNION_SHARED, TERNION_DATA; TERNION_FULL and TERNION_EXPORTS
add resnet50 at 224, by relative error of its logits on 8 random images, ranges from 8 of Tiny ImageNet)
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

TERNION = sys.argv[1]
MODELS = os.path.join(os.environ["TERNION_SHARED"], "models")
CIFAR = os.path.join(os.environ["TERNION_DATA"], "cifar10")
EXPORTS = os.environ.get("TERNION_EXPORTS", "")
FULL = os.environ.get("TERNION_FULL") == "1"
SEED = os.environ.get("TERNION_SEED", "1")
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
failed = 0


def check(what, good):
    global failed
    failed += not good
    if not good:
        print("FAILED", what, flush=True)


def ternion(*words):
    done = subprocess.run([TERNION, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ternion {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def run(path, x):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    step = shape[0] if isinstance(shape[0], int) else 64
    return np.concatenate([session.run(None, {name: x[i : i + step]})[0] for i in range(0, len(x), step)])


IMAGES = ["--calibration-data", CIFAR, "--calibration-samples", "64", "--seed", SEED, "--method", "round",
          "--bn", "keep"]


def min_max(bits):
    return ["--scheme", "affine", "--bits", bits, "--first-layer", bits, "--last-layer", bits, "--bias-bits", bits,
            "--input-bits", bits, *IMAGES]


# name, options, most points below float, most labels on which the two runtimes differ
CASES = [
    ("FC ternary per row, mean:0.75", ["--conv-bits", "keep", "--last-layer", "1.58", "--threshold", "mean:0.75"], 3, 0),
    ("min-max weights, biases, input 16 bits", min_max("16"), 0.3, 1),
    ("min-max weights, biases, input 8 bits", min_max("8"), 0.6, 4),
    ("min-max weights, biases, input 4 bits", min_max("4"), 100, 20),
    ("weights 8, activations 8, input 8 (qdq)", ["--scheme", "fixed", "--bits", "8", "--activation-bits", "8",
     "--input-bits", "8", "--bias-bits", "16", "--form", "qdq", *IMAGES], 0.6, 8),
    ("weights 8, activations 4", ["--scheme", "fixed", "--bits", "8", "--activation-bits", "4", *IMAGES], 2, 20),
    ("weights 8, activations 16", ["--scheme", "fixed", "--bits", "8", "--activation-bits", "16", *IMAGES], 0.5, 1),
    ("weights 4, activations 8 (int8-lut)", ["--scheme", "fixed", "--bits", "4", "--activation-bits", "8", "--form",
     "int8-lut", *IMAGES], 4, 8),
    ("weights ternary, calibrated, activations 8 (int8-lut)", ["--activation-bits", "8", "--form", "int8-lut",
     "--calibration-data", CIFAR, "--calibration-samples", "64", "--seed", SEED], 6, 8),
]


def cifar(model, folder, x, labels, cases):
    source, path = os.path.join(MODELS, model + ".onnx"), os.path.join(folder, "q.onnx")
    before = (run(source, x).argmax(1) == labels).mean() * 100
    for name, options, most, apart in cases:
        made = json.loads(ternion("quantize", source, "-o", path, "-f", "-q", "--json", *options))
        ternion("verify", path)
        seen = json.loads(ternion("inspect", path, "--json"))["layers"]
        if "--activation-bits" in options:
            bits = int(options[options.index("--activation-bits") + 1])
            check(f"{name}: inspect", {layer["activation_bits"] for layer in seen if layer["scheme"] != "float"} == {bits})
        if "--bias-bits" in options and "bnfolded" in model:
            check(f"{name}: biases", made["biases"] > 15)
        predictions = os.path.join(folder, "p.txt")
        figures = json.loads(ternion("evaluate", path, "--precision", "fp32", "--data", CIFAR, "--json", "--preprocess", "cifar10",
                                     "--predictions", predictions, "-f"))
        ours = np.loadtxt(predictions, ndmin=2)
        theirs = run(path, x)
        differ = int((theirs.argmax(1) != ours[:, 2]).sum())
        after = figures["top1"] * 100
        off = np.abs(theirs.max(1) - ours[:, 3]).max() / np.abs(theirs).max()
        print(f"{model} | {name} | float {before:.2f} | quantized {after:.2f} | in ONNX Runtime "
              f"{(theirs.argmax(1) == labels).mean() * 100:.2f} | {differ} labels differ, top logit by {off:.1e} | "
              f"{made['bytes_out']} bytes", flush=True)
        check(f"{name}: {after:.2f} is more than {most} below {before:.2f}", after >= before - most)
        check(f"{name}: {differ} labels differ", differ <= apart)


def whole_file(folder, x):
    """The whole ternary file of resnet20 is below 100,000 bytes (float: 1,112,485), and no worse for it."""
    source, path, plain = (os.path.join(folder if i else MODELS, name) for i, name in
                           enumerate(("resnet20-cifar10.onnx", "small.onnx", "float.onnx")))
    for options in [], ["--calibration-data", CIFAR, "--calibration-samples", "64", "--seed", SEED]:
        made = json.loads(ternion("quantize", source, "-o", path, "-f", "-q", "--json", "--prune-dead", "--rest",
                                  "float16", *options))
        ternion("verify", path, *([] if options else ["--against", source]))
        ternion("export", path, "-o", plain, "-f", "-q", "--form", "float")
        a, b = run(path, x[:128]), run(plain, x[:128])
        off = np.abs(a - b).max() / np.abs(b).max()
        print(f"resnet20-cifar10 | ternary, --prune-dead --rest float16 {' '.join(options[:1])} | "
              f"{made['bytes_out']} bytes of {made['bytes_in']} | from its float form by {off:.1e}", flush=True)
        check(f"{made['bytes_out']} bytes", made["bytes_out"] < 100000)
        check(f"small file computes the same: {off}", off < 1e-5)


def large(folder):
    source = os.path.join(EXPORTS, "resnet50-classic17-dynamic.onnx")
    path = os.path.join(folder, "q.onnx")
    x = np.random.default_rng(int(SEED)).uniform(-2, 2.4, size=(8, 3, 224, 224)).astype(np.float32)
    images = ["--calibration-data", os.path.join(os.environ["TERNION_DATA"], "tiny-imagenet-200"), "--preprocess",
              "imagenet", "--calibration-samples", "8", "--seed", SEED, "--method", "round", "--bn", "keep"]
    before = run(source, x)
    for bits, most in (("16", 1e-3), ("8", 0.1), ("4", 10)):
        options = min_max(bits)[: -len(IMAGES)] + images
        ternion("quantize", source, "-o", path, "-f", "-q", *options)
        off = np.abs(run(path, x) - before).max() / np.abs(before).max()
        print(f"resnet50 at 224 | min-max weights, biases, input {bits} bits | relative logit error {off:.2e}", flush=True)
        check(f"resnet50, {bits} bits: {off}", off <= most)


raw = np.fromfile(os.path.join(CIFAR, "test_batch.bin"), np.uint8).reshape(-1, 3073)
pixels = (raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255) - MEAN) / STD
with tempfile.TemporaryDirectory() as work:
    cifar("resnet20-cifar10", work, pixels, raw[:, 0], CASES if FULL else CASES[:6])
    cifar("resnet20-cifar10-bnfolded", work, pixels, raw[:, 0], CASES if FULL else CASES[2:5])
    whole_file(work, pixels)
    if FULL:
        cifar("resnet44-cifar10", work, pixels, raw[:, 0], CASES[:4])
    if FULL and os.path.isdir(EXPORTS):
        large(work)
sys.exit(1 if failed else 0)
