"""evaluate_tool against ONNX Runtime and against published counts."""
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

TOOL = sys.argv[1]
MODELS = os.path.join(os.environ["TERNION_SHARED"], "models")
DATA = os.environ["TERNION_DATA"]
FULL = os.environ.get("TERNION_FULL") == "1"
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
failed = 0


def check(what, good):
    global failed
    failed += not good
    print(what, "ok" if good else "FAILED")


def run(model, data, *options):
    with tempfile.NamedTemporaryFile() as f:
        line = subprocess.run([TOOL, os.path.join(MODELS, model), data, *map(str, options), f.name],
                              check=True, capture_output=True, text=True).stdout
        figures = {k: float(v) for k, v in re.findall(r"(\w+) ([\d.]+)", line)}
        return figures, np.loadtxt(f.name, ndmin=2)


def labels(model, x):
    s = ort.InferenceSession(os.path.join(MODELS, model), providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    return np.concatenate([s.run(None, {name: x[i : i + 64]})[0] for i in range(0, len(x), 64)])


def cifar():
    raw = np.fromfile(os.path.join(DATA, "cifar10/test_batch.bin"), np.uint8).reshape(-1, 3073)
    x = (raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255) - MEAN) / STD
    for model, right in (("resnet20-cifar10", 932), ("resnet20-cifar10-bnfolded", 932), ("resnet44-cifar10", 950)):
        figures, rows = run(model + ".onnx", os.path.join(DATA, "cifar10"), "cifar10", 64, 0)
        z = labels(model + ".onnx", x)
        check(f"{model}: {figures['top1']:.0f} of 1017", figures["images"] == 1017 and figures["top1"] == right)
        check(f"{model}: labels", (rows[:, 2] == z.argmax(1)).all() and (rows[:, 1] == raw[:, 0]).all())
        e = np.exp(z.astype(np.float64) - z.max(1, keepdims=True))
        loss = -np.log(e[np.arange(1017), raw[:, 0]] / e.sum(1)).mean()
        check(f"{model}: loss {loss:.6f}", abs(figures["loss"] - loss) < 1e-5)


def tiny_imagenet():
    from PIL import Image

    root = os.path.join(DATA, "tiny-imagenet-200")
    lines = [line.split("\t") for line in open(os.path.join(root, "val/val_annotations.txt"))]
    wnids = sorted(line.strip() for line in open(os.path.join(root, "wnids.txt")))
    for model, top1, top5 in (("densenet-small-tin", 4849, 0.7507), ("densenet-small-tin-ttq-reference", 3961, 0.6723)):
        limit = 0 if FULL else 400
        figures, rows = run(model + ".onnx", root, "tiny-imagenet", 64, limit)
        if FULL:
            check(f"{model}: {figures['top1']:.0f} of 10000", abs(figures["top1"] - top1) <= 3)
            check(f"{model}: top-5 {figures['topk']:.0f}", abs(figures["topk"] / 10000 - top5) < 0.0005)
        rows = rows[:400]
        x = []
        for index, label, *_ in rows:
            name, wnid = lines[int(index)][:2]
            assert wnids[int(label)] == wnid
            image = Image.open(os.path.join(root, "val/images", name)).convert("RGB").crop((4, 4, 60, 60))
            x.append(np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255))
        z = labels(model + ".onnx", (np.stack(x) - MEAN) / STD)
        check(f"{model}: labels", (rows[:, 2] == z.argmax(1)).all())
        check(f"{model}: logits", np.abs(rows[:, 3] - z.max(1)).max() < 1e-3)


cifar()
if os.path.isdir(os.path.join(DATA, "tiny-imagenet-200/val")):
    tiny_imagenet()
sys.exit(1 if failed else 0)
