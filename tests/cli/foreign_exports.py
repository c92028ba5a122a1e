"""foreign_exports.py TERNION: networks with the habits of other exporters (images [N, H, W, C], MatMul and
Add for a linear layer, Split) through evaluate, quantize with images and finetune. ONNX Runtime is the
oracle of the outputs; a network and its channels-last twin must get the same weights."""
import os
import subprocess
import sys
import tempfile

import numpy as np

try:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    sys.exit(77)

SIDE, CLASSES, TRAIN, TEST = 16, 10, 96, 64
GREY = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--resize", str(SIDE), "--crop", str(SIDE)]
COMMON = ["--threads", "1", "--no-progress", "--no-preflight", "--precision", "fp32"]


class Builder:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape):
        fan = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        return self.constant((self.rng.standard_normal(shape) * (2 / fan) ** 0.5).astype(np.float32))

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, i, o, stride=2, group=1):
        y = self.op("Conv", x, self.weight(o, i // group, 3, 3), pads=[1] * 4, strides=[stride] * 2,
                    group=group)
        return self.op("Relu", y)

    def linear(self, x, i, o):
        bias = self.constant((self.rng.standard_normal(o) * 0.1).astype(np.float32))
        return self.op("Add", self.op("MatMul", x, self.weight(i, o)), bias)

    def save(self, path, y, dims):
        sizes = [("input", ["N", *dims]), (y, ["N", CLASSES])]
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in sizes]
        graph = helper.make_graph(self.nodes, "g", values[:1], values[1:], self.constants)
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)


def dense(path, channels_last):
    """1,024 inputs to the quantized MatMul: there the order of sums begins to matter."""
    b = Builder(1)
    x = b.op("Transpose", "input", perm=[0, 3, 1, 2]) if channels_last else "input"
    x = b.op("Flatten", b.conv(b.conv(x, 3, 16, 1), 16, 16))
    x = b.op("Relu", b.linear(x, 1024, 48))
    b.save(path, b.linear(x, 48, CLASSES), [SIDE, SIDE, 3] if channels_last else [3, SIDE, SIDE])


def split(path):
    b = Builder(2)
    x = b.conv("input", 3, 24)
    left, right = b.op("Split", x, b.constant(np.array([8, 16], np.int64)), outputs=2, axis=1)
    x = b.op("Concat", left, b.conv(right, 16, 16, 1, 16), axis=1)
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(x, 24, 32)))
    b.save(path, b.linear(x, 32, CLASSES), [3, SIDE, SIDE])


def ternion(*arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode:
        sys.exit(f"ternion {' '.join(arguments)}\nexit code {done.returncode}\n{done.stderr}")


def check_outputs(path, data, images, folder):
    """The top-1 class and logit of each image, against ONNX Runtime's."""
    written = os.path.join(folder, "predictions")
    ternion("evaluate", path, "--data", data, "--predictions", written, *GREY, *COMMON)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = ((images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).astype(np.float32)
    if session.get_inputs()[0].shape[1] == 3:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    want = session.run(None, {"input": x})[0]
    rows = [line.split() for line in open(written) if line.split()[0].isdigit()]
    assert len(rows) == len(images), f"{path}: {len(rows)} predictions"
    for row in rows:
        logits = want[int(row[0])]
        if abs(float(row[-1]) - logits.max()) > 1e-4 * np.abs(want).max():
            sys.exit(f"{path}: image {row[0]} has logit {row[-1]}, ONNX Runtime says {logits.max()}")


def weights(path):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def main():
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        at = {name: os.path.join(folder, name) for name in
              ("first.onnx", "last.onnx", "split.onnx", "quantized.onnx", "tuned.onnx", "data.npz")}
        images = rng.integers(0, 256, (TRAIN + TEST, SIDE, SIDE, 3)).astype(np.uint8)
        labels = rng.integers(0, CLASSES, TRAIN + TEST)
        labels[:CLASSES] = np.arange(CLASSES)
        np.savez(at["data.npz"], x_train=images[:TRAIN], y_train=labels[:TRAIN], x_test=images[TRAIN:],
                 y_test=labels[TRAIN:])
        dense(at["first.onnx"], False)
        dense(at["last.onnx"], True)
        split(at["split.onnx"])
        floats = []
        for name in ("first.onnx", "last.onnx", "split.onnx"):
            check_outputs(at[name], at["data.npz"] + ":val", images[TRAIN:], folder)
            ternion("quantize", at[name], "-o", at["quantized.onnx"], "-f", "--form", "float",
                    "--calibration-data", at["data.npz"] + ":train", "--calibration-samples", "64", *GREY,
                    *COMMON)
            check_outputs(at["quantized.onnx"], at["data.npz"] + ":val", images[TRAIN:], folder)
            floats.append(weights(at["quantized.onnx"]))
            # finetune ends with an error where the written file computes other bits than were trained
            ternion("finetune", at[name], "-o", at["tuned.onnx"], "-f", "--data", at["data.npz"], "--epochs",
                    "1", "--batch-size", "32", "--lr", "0.001", *GREY, *COMMON)
            check_outputs(at["tuned.onnx"], at["data.npz"] + ":val", images[TRAIN:], folder)
        assert floats[0].keys() == floats[1].keys(), "the twins' weights have different names"
        for name, values in floats[0].items():
            assert np.array_equal(values, floats[1][name]), f"weight {name} differs between the twins"
    print("foreign exports: 3 networks")


main()
