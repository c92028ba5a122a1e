"""foreign_quantize.py TERNION: quantize without images on networks with the habits of other exporters.
ONNX Runtime is the oracle: what its optimizations make of a packed file must be what the file says."""
import json
import os
import subprocess
import sys
import tempfile

from foreign_exports import Builder, branch, ternion  # ends with 77 where a package is missing

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

FORMS = ["lut", "int2", "qdq", "planes"]
ALL = ["--first-layer", "1.58", "--last-layer", "1.58"]


def run(path, feeds, optimized=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def save(b, path, inputs, output, opset=13, extra=()):
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    result = helper.make_tensor_value_info(*output)
    graph = helper.make_graph(b.nodes, "g", values, [result], b.constants)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*e) for e in extra)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=imports), path)


def fails(code, message, *arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode != code or message not in done.stderr:
        sys.exit(f"ternion {' '.join(arguments)}: exit code {done.returncode}, not {code}: {message}\n{done.stderr}")


def record(path):
    return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["ternion"])


def check(path, feeds, forms=(*FORMS,), options=ALL, smaller=True):
    """Each form loads, means the same however it is optimized, and is verified against the input."""
    packed = path + ".packed"
    for form in forms:
        ternion("quantize", path, "-o", packed, "-f", "--form", form, *options)
        ternion("verify", packed, "--against", path)
        plain, fast = run(packed, feeds, False), run(packed, feeds)
        error = np.abs(plain - fast).max() / np.abs(plain).max()
        assert error < 1e-4, f"{path}, {form}: optimized, it is off by {error}"
        if smaller:
            sizes = os.path.getsize(packed), os.path.getsize(path)
            assert sizes[0] < 0.5 * sizes[1], f"{path}, {form}: {sizes[0]} of {sizes[1]} bytes"


def float_image(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def quantize_linear(b, x, scale, zero):
    return b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)


def check_integer_network(folder):
    """Activations that are quantized already: runtimes make integer operators of the layers."""
    path = os.path.join(folder, "integer.onnx")
    b = Builder(1)
    scale, zero = b.constant(np.float32(0.05)), b.constant(np.uint8(128))
    x = quantize_linear(b, "input", scale, zero)
    for _ in range(2):
        codes = b.constant(b.rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8))
        spread = np.array([1, .1, 2, .05, 1, 3, .3, 1], np.float32) * 0.002
        weight = b.op("DequantizeLinear", codes, b.constant(spread), b.constant(np.zeros(8, np.int8)), axis=0)
        x = b.op("MaxPool", quantize_linear(b, b.op("Conv", x, weight, pads=[1] * 4), scale, zero),
                 kernel_shape=[1, 1])
    save(b, path, [("input", TensorProto.FLOAT, [2, 8, 6, 6])], (x, TensorProto.FLOAT, [2, 8, 6, 6]))
    feeds = {"input": float_image(2, 8, 6, 6)}
    check(path, feeds, ["int8-lut"], smaller=False)
    for form in FORMS:
        fails(2, "use form int8-lut", "quantize", path, "-o", path + ".packed", "-f", "--form", form, *ALL)
    ternion("quantize", path, "-o", path + ".packed", "-f", *ALL)
    assert record(path + ".packed")["layers"][0]["form"] == "int8-lut"


def check_branches(folder):
    """An If that stays: what only the layers read must not stay beside the packed weights."""
    path = os.path.join(folder, "branches.onnx")
    b = Builder(2)
    x = b.op("Relu", b.linear("input", 256, 256))
    x = b.op("If", "which", then_branch=branch(helper.make_node("Relu", [x], ["t"]), "then"),
             else_branch=branch(helper.make_node("Neg", [x], ["e"]), "else"))
    x = b.linear(x, 256, 256)
    left, right = b.op("Split", b.weight(512, 256), outputs=2, axis=0)
    x = b.op("Add", b.op("MatMul", x, left), b.op("MatMul", x, right))
    save(b, path, [("input", TensorProto.FLOAT, [1, 256]), ("which", TensorProto.BOOL, [])],
         (x, TensorProto.FLOAT, [1, 256]))
    feeds = {"input": float_image(1, 256), "which": np.array(True)}
    check(path, feeds)
    check(path, feeds, ["lut"], [*ALL, "--prune-dead"])
    check(path, feeds, ["lut"], [*ALL, "--bias-bits", "8"])
    check(path, feeds, ["lut"], [*ALL, "--rest", "float16"])


def check_grouped_transpose(folder):
    """A layer that per-channel schemes refuse hides no other from what reads the file."""
    path = os.path.join(folder, "grouped.onnx")
    b = Builder(3)
    x = b.conv(b.conv("input", 8, 8, 1), 8, 8, 1)
    x = b.op("ConvTranspose", x, b.weight(8, 4, 2, 2), group=2, strides=[2, 2])
    save(b, path, [("input", TensorProto.FLOAT, [1, 8, 6, 6])], (x, TensorProto.FLOAT, [1, 8, 12, 12]))
    last = [*ALL, "--nodes-to-exclude", onnx.load(path).graph.node[-1].name]
    check(path, {"input": float_image(1, 8, 6, 6)}, ["lut"], last, smaller=False)
    ternion("export", path + ".packed", "-o", path + ".float", "-f", "--form", "float")
    fails(0, "", "compare", path, path + ".packed")


def check_record(folder):
    """What the input's record says of the rest of the file, the output's says too."""
    path, packed, again = (os.path.join(folder, name) for name in ("plain.onnx", "packed.onnx", "again.onnx"))
    b = Builder(4)
    save(b, path, [("input", TensorProto.FLOAT, [1, 256])],
         (b.linear(b.op("Relu", b.linear("input", 256, 256)), 256, 256), TensorProto.FLOAT, [1, 256]))
    ternion("quantize", path, "-o", packed, "-f", "--rest", "float16", *ALL[:2])
    model = onnx.load(packed)
    said = record(packed) | {"preprocess": {"mean": [0.5], "std": [0.25]}}
    del model.metadata_props[:]
    helper.set_model_props(model, {"ternion": json.dumps(said)})
    onnx.save(model, packed)
    for command in (["export", "--form", "int2"], ["quantize", *ALL]):
        ternion(command[0], packed, "-o", again, "-f", *command[1:])
        ternion("verify", again, "--against", path)
        for key in ("preprocess", "rest"):
            assert record(again).get(key) == said[key], f"{command}: {key} is {record(again).get(key)}"


def check_removed(folder):
    """Operators that newer opsets, or the runtime for them, lack."""
    path = os.path.join(folder, "removed.onnx")
    b = Builder(5)
    x = b.op("ScaledTanh", b.conv(b.op("ImageScaler", "input", bias=[0.0] * 8, scale=2.0), 8, 8), alpha=1.0,
             beta=1.0)
    save(b, path, [("input", TensorProto.FLOAT, [1, 8, 6, 6])], (x, TensorProto.FLOAT, [1, 8, 3, 3]), 9)
    for form in ("int2", "qdq"):
        fails(3, "ImageScaler", "quantize", path, "-o", path + ".packed", "-f", "--form", form, *ALL)


def check_spellings(folder):
    """One number as [1] and as []; the default domain under both of its names."""
    path = os.path.join(folder, "spellings.onnx")
    b = Builder(6)
    codes = b.constant(b.rng.integers(-127, 128, (64, 64)).astype(np.int8))
    weight = b.op("DequantizeLinear", codes, b.constant(np.array([0.01], np.float32)), b.constant(np.int8(0)))
    save(b, path, [("input", TensorProto.FLOAT, [1, 64])],
         (b.op("MatMul", b.op("Relu", b.op("MatMul", "input", weight)), b.weight(64, 64)), TensorProto.FLOAT,
          [1, 64]), extra=[("ai.onnx", 13)])
    check(path, {"input": float_image(1, 64)}, ["lut", "qdq"], smaller=False)
    ternion("quantize", path, "-o", path + ".packed", "-f", "--form", "qdq", *ALL)
    assert len({i.version for i in onnx.load(path + ".packed").opset_import}) == 1, "two default opsets"


def check_last(folder):
    """Behind an If that reads it from outside, a layer is the last all the same: it stays."""
    path = os.path.join(folder, "last.onnx")
    b = Builder(7)
    x = b.linear(b.linear(b.linear("input", 64, 64), 64, 64), 64, 64)
    y = b.op("If", "which", then_branch=branch(helper.make_node("Relu", [x], ["t"]), "then"),
             else_branch=branch(helper.make_node("Neg", [x], ["e"]), "else"))
    save(b, path, [("input", TensorProto.FLOAT, [1, 64]), ("which", TensorProto.BOOL, [])],
         (y, TensorProto.FLOAT, [1, 64]))
    ternion("quantize", path, "-o", path + ".packed", "-f")
    layers = len(record(path + ".packed")["layers"])
    assert layers == 1, f"{layers} layers quantized, not the one between the first and the last"


def check_names(folder):
    """A mistyped rule among names longer than a message holds."""
    path = os.path.join(folder, "names.onnx")
    b = Builder(8)
    x = "input"
    for _ in range(12):
        x = b.op("MatMul", x, b.weight(4, 4))
    for k, node in enumerate(b.nodes):
        node.name = str(k).ljust(71 if k == 6 else 150, "n")  # the eighth just passes the end
    save(b, path, [("input", TensorProto.FLOAT, [1, 4])], (x, TensorProto.FLOAT, [1, 4]))
    fails(2, "(12 in all)", "quantize", path, "-o", path + ".packed", "-l", "nomatch=4")


def check_sum(folder):
    """Two products [1, N] added: neither is the other's bias."""
    path = os.path.join(folder, "sum.onnx")
    b = Builder(9)
    x = b.op("Add", b.op("MatMul", "input", b.weight(64, 64)), b.op("MatMul", "input", b.weight(64, 64)))
    save(b, path, [("input", TensorProto.FLOAT, [1, 64])], (x, TensorProto.FLOAT, [1, 64]))
    check(path, {"input": float_image(1, 64)}, ["lut"], smaller=False)


def main():
    onnxruntime.set_default_logger_severity(4)
    checks = [check_integer_network, check_branches, check_grouped_transpose, check_record, check_removed,
              check_spellings, check_last, check_names, check_sum]
    with tempfile.TemporaryDirectory() as folder:
        for one in checks:
            one(folder)
    print(f"foreign networks: {len(checks)} checks")


if __name__ == "__main__":
    main()
