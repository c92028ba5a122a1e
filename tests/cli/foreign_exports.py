"""foreign_exports.py TERNION: networks with the habits of other exporters (images [N, H, W, C], MatMul and
Add for a linear layer, Split, Gather, If around a shape, FLOAT16, bytes, two outputs) through evaluate,
quantize with images and finetune. ONNX Runtime is the oracle of the outputs; a network and its
channels-last twin must get the same weights."""
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

    def save(self, path, y, dims, kind=TensorProto.FLOAT, before=()):
        values = [helper.make_tensor_value_info("input", kind, ["N", *dims])]
        for name, size in [*before, (y, CLASSES)]:
            result = kind if kind == TensorProto.FLOAT16 else TensorProto.FLOAT
            values.append(helper.make_tensor_value_info(name, result, ["N", size]))
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


def half(path):
    """Trained in fp32, kept in half: what is written is rounded, and so is what it is compared with."""
    b = Builder(6)
    x = b.conv(b.conv("input", 3, 16), 16, 32)
    b.constants = [numpy_helper.from_array(numpy_helper.to_array(k).astype(np.float16), k.name)
                   for k in b.constants]
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    weight = b.constant((b.rng.standard_normal((32, CLASSES)) * 0.3).astype(np.float16))
    b.save(path, b.op("MatMul", x, weight), [3, SIDE, SIDE], TensorProto.FLOAT16)


def pixels(path):
    """Bytes [N, H, W, C], the preprocessing inside."""
    b = Builder(7)
    x = b.op("Transpose", b.op("Cast", "input", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = b.op("Div", b.op("Sub", x, b.constant(np.float32(127.5))), b.constant(np.float32(63.75)))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(b.conv(x, 3, 16), 16, 32)))
    b.save(path, b.linear(x, 32, CLASSES), [SIDE, SIDE, 3], TensorProto.UINT8)


def features(path):
    """The logits are the second output."""
    b = Builder(8)
    x = b.conv(b.conv(b.conv("input", 3, 16), 16, 16, 1), 16, 8)
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    b.save(path, b.linear(x, 8, CLASSES), [3, SIDE, SIDE], before=[(x, 8)])


def ternion(*arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode:
        sys.exit(f"ternion {' '.join(arguments)}\nexit code {done.returncode}\n{done.stderr}")


def check_outputs(path, data, images, folder, options):
    """The top-1 class and logit of each image, against ONNX Runtime's."""
    written = os.path.join(folder, "predictions")
    ternion("evaluate", path, "--data", data, "--predictions", written, "-f", *options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = session.get_inputs()[0]
    x = ((images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).astype(np.float32)
    if fed.type == "tensor(uint8)":
        x = images
    elif fed.type == "tensor(float16)":
        x = x.astype(np.float16)
    if fed.shape[1] == 3:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    want = session.run(None, {"input": x})[-1].astype(np.float64)
    tolerance = 2e-3 if fed.type == "tensor(float16)" else 1e-4
    rows = [line.split() for line in open(written) if line.split()[0].isdigit()]
    assert len(rows) == len(images), f"{path}: {len(rows)} predictions"
    for row in rows:
        logits = want[int(row[0])]
        if abs(float(row[-1]) - logits.max()) > tolerance * np.abs(want).max():
            sys.exit(f"{path}: image {row[0]} has logit {row[-1]}, ONNX Runtime says {logits.max()}")


def expect(code, message, path, data, *options):
    done = subprocess.run([sys.argv[1], "evaluate", path, "--data", data, *options], capture_output=True,
                          text=True, timeout=300)
    if done.returncode != code or message not in done.stderr:
        sys.exit(f"{path} {options}: exit code {done.returncode}, not {code}: {message}\n{done.stderr}")


def check_refusals(at, data, folder):
    """Branches with the same names cannot stand in one graph; bytes take no mean; an output that is no
    classifier's leads to the others."""
    same = os.path.join(folder, "same.onnx")
    branches(same, "same")
    expect(3, "If; a conversion without images", same, data, *GREY, *COMMON)
    expect(2, "pixels of 0 to 255", at["pixels.onnx"], data, *GREY, *COMMON)
    outputs = [o.name for o in onnx.load(at["features.onnx"]).graph.output]
    expect(4, f"--output takes another of its outputs: '{outputs[1]}'", at["features.onnx"], data,
            "--output", outputs[0], *GREY, *COMMON)


def check_warning(data, folder):
    """An export in training mode: what a runtime makes of it depends on the batch."""
    path = os.path.join(folder, "training.onnx")
    b = Builder(9)
    numbers = [b.constant(np.full(16, k, np.float32)) for k in (1, 0, 0.5, 2)]
    x = b.op("BatchNormalization", b.conv("input", 3, 16), *numbers, outputs=3, training_mode=1)[0]
    b.save(path, b.linear(b.op("Flatten", b.op("GlobalAveragePool", x)), 16, CLASSES), [3, SIDE, SIDE])
    model = onnx.load(path)
    model.opset_import[0].version = 15
    onnx.save(model, path)
    expect(0, "is in training mode", path, data, *GREY, *COMMON)


def check_static_batch(at, folder):
    """Right at the file's batch of 1 alone: images pass one by one."""
    path = os.path.join(folder, "static.onnx")
    b = Builder(10)
    x = b.op("GlobalAveragePool", b.conv(b.conv("input", 3, 16), 16, 16))
    x = b.op("Unsqueeze", b.op("Squeeze", x), b.constant(np.array([0])))
    b.save(path, b.linear(x, 16, CLASSES), [3, SIDE, SIDE])
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    ternion("evaluate", path, "--data", at["data.npz"] + ":val", *GREY, *COMMON)
    ternion("quantize", path, "-o", at["quantized.onnx"], "-f", "--calibration-data", at["data.npz"] + ":train",
            "--calibration-samples", "32", *GREY, *COMMON)
    ternion("verify", at["quantized.onnx"])


def check_head(at, data, folder):
    """A new head where the chosen output is; the other keeps its shape."""
    outputs = [o.name for o in onnx.load(at["features.onnx"]).graph.output]
    ternion("finetune", at["features.onnx"], "-o", at["tuned.onnx"], "-f", "--data", data, "--epochs", "1",
            "--batch-size", "32", "--output", outputs[1], "--classes", str(CLASSES), *GREY, *COMMON)
    for value, size in zip(onnx.load(at["tuned.onnx"]).graph.output, (8, CLASSES)):
        assert value.type.tensor_type.shape.dim[1].dim_value == size, f"{value.name} is not [N, {size}]"


def check_products(at, data):
    """MatMul becomes Gemm in the file, and computes the trained logits' bits at any size and precision."""
    for batch, precision in (("8", "fp32"), ("12", "bf16"), ("96", "bf16")):
        ternion("finetune", at["first.onnx"], "-o", at["tuned.onnx"], "-f", "--data", data, "--epochs", "1",
                "--batch-size", batch, "--lr", "0.001", *GREY, *COMMON[:-1], precision)


NETWORKS = {"first.onnx": lambda path: dense(path, False), "last.onnx": lambda path: dense(path, True),
            "split.onnx": split, "branches.onnx": branches, "planes.onnx": planes, "half.onnx": half,
            "pixels.onnx": pixels, "features.onnx": features}


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
            options = [*([] if name == "pixels.onnx" else GREY), *COMMON]
            if name == "features.onnx":
                options += ["--output", onnx.load(at[name]).graph.output[1].name]
            check = [at["data.npz"] + ":val", images[TRAIN:], folder, options]
            check_outputs(at[name], *check)
            ternion("quantize", at[name], "-o", at["quantized.onnx"], "-f", "--form", "float",
                    "--calibration-data", at["data.npz"] + ":train", "--calibration-samples", "64",
                    *options)
            check_outputs(at["quantized.onnx"], *check)
            floats.append(weights(at["quantized.onnx"]))
            # finetune ends with an error where the written file computes other bits than were trained
            ternion("finetune", at[name], "-o", at["tuned.onnx"], "-f", "--data", at["data.npz"], "--epochs",
                    "1", "--batch-size", "32", "--lr", "0.001", *options)
            check_outputs(at["tuned.onnx"], *check)
        assert floats[0].keys() == floats[1].keys(), "the twins' weights have different names"
        for name, values in floats[0].items():
            assert np.array_equal(values, floats[1][name]), f"weight {name} differs between the twins"
        check_static_batch(at, folder)
        check_refusals(at, at["data.npz"] + ":val", folder)
        check_warning(at["data.npz"] + ":val", folder)
        check_head(at, at["data.npz"], folder)
        check_products(at, at["data.npz"])
    print(f"foreign exports: {len(NETWORKS)} networks")


if __name__ == "__main__":
    main()
