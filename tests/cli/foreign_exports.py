"""foreign_exports.py TERNION: networks with the habits of other exporters (images [N, H, W, C], MatMul and
Add for a linear layer, Split, Gather, If around a shape) through evaluate, quantize with images and finetune. ONNX Runtime is the
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


def branch(node, name):
    return helper.make_graph([node], name, [], [onnx.ValueInfoProto(name=node.output[0])])


def squeeze_if_one(b, x, names=""):
    """As torch writes squeeze(1) where it does not know the size."""
    size = b.op("Gather", b.op("Shape", x), b.constant(np.array([1])), axis=0)
    then, other = names or f"then{len(b.nodes)}", names or f"else{len(b.nodes)}"
    squeeze = helper.make_node("Squeeze", [x, b.constant(np.array([1]))], [then])
    return b.op("If", b.op("Equal", size, b.constant(np.array([1]))), then_branch=branch(squeeze, "then"),
                else_branch=branch(helper.make_node("Identity", [x], [other]), "else"))


def branches(path, names=""):
    """torch's LocalResponseNorm with a dynamic batch; the second If is decided by the first's output,
    and takes its other branch."""
    b = Builder(4)
    x = b.conv("input", 3, 16)
    batch = b.op("Slice", b.op("Shape", x), b.constant(np.array([0])), b.constant(np.array([1])))
    planes = b.op("Concat", batch, b.constant(np.array([1, 16, 8, 8])), axis=0)
    mean = b.op("AveragePool", b.op("Reshape", b.op("Mul", x, x), planes), kernel_shape=[5, 1, 1],
                pads=[2, 0, 0, 2, 0, 0], count_include_pad=1)
    mean = squeeze_if_one(b, squeeze_if_one(b, mean, names), names)
    mean = b.op("Add", b.op("Mul", mean, b.constant(np.float32(0.5))), b.constant(np.float32(1)))
    x = b.op("Div", x, b.op("Pow", mean, b.constant(np.float32(0.75))))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(x, 16, 32)))
    b.save(path, b.linear(x, 32, CLASSES), [3, SIDE, SIDE])


def planes(path):
    """torchvision's transform_input, and two ways of reversing channels."""
    b = Builder(5)
    parts = []
    for channel, (factor, shift) in enumerate([(0.9, -0.1), (0.8, 0.1), (1.1, 0.2)]):
        plane = b.op("Gather", "input", b.constant(np.array(channel)), axis=1)
        plane = b.op("Unsqueeze", plane, b.constant(np.array([1])))
        plane = b.op("Mul", plane, b.constant(np.float32(factor)))
        parts.append(b.op("Add", plane, b.constant(np.float32(shift))))
    x = b.op("Gather", b.op("Concat", *parts, axis=1), b.constant(np.array([2, 1, 0])), axis=1)
    x = b.op("Gather", b.conv(x, 3, 16), b.constant(np.array([-2, 12, 10, 8])), axis=1)
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(x, 4, 32)))
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


def check_refusal(path, data):
    """Two branches with the same names cannot stand in one graph: named, not mixed up."""
    branches(path, "same")
    done = subprocess.run([sys.argv[1], "evaluate", path, "--data", data, *GREY, *COMMON],
                          capture_output=True, text=True, timeout=300)
    if done.returncode != 3 or "If; a conversion without images" not in done.stderr:
        sys.exit(f"branches with the same names: exit code {done.returncode}\n{done.stderr}")


NETWORKS = {"first.onnx": lambda path: dense(path, False), "last.onnx": lambda path: dense(path, True),
            "split.onnx": split, "branches.onnx": branches, "planes.onnx": planes}


def weights(path):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def main():
    onnxruntime.set_default_logger_severity(3)
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        at = {name: os.path.join(folder, name) for name in
              (*NETWORKS, "quantized.onnx", "tuned.onnx", "data.npz")}
        images = rng.integers(0, 256, (TRAIN + TEST, SIDE, SIDE, 3)).astype(np.uint8)
        labels = rng.integers(0, CLASSES, TRAIN + TEST)
        labels[:CLASSES] = np.arange(CLASSES)
        np.savez(at["data.npz"], x_train=images[:TRAIN], y_train=labels[:TRAIN], x_test=images[TRAIN:],
                 y_test=labels[TRAIN:])
        floats = []
        for name, make in NETWORKS.items():
            make(at[name])
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
        check_refusal(at["branches.onnx"], at["data.npz"] + ":val")
    print(f"foreign exports: {len(NETWORKS)} networks")


main()
