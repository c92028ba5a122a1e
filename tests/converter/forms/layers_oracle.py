"""Small networks of every kind of layer in every form: ONNX Runtime computes exactly what it does
with form float (the decoded weights are equal bit for bit; DequantizeLinear kept in the graph may
run other kernels: 1e-5 then, 2e-3 in half precision).

usage: layers_oracle.py PACK_TOOL
"""
import os
import sys
import tempfile

sys.argv[2:] = ["layers"]
import runtime_oracle as oracle  # noqa: E402

import numpy  # noqa: E402
import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

# name, operator, weight shape, input shape, attributes, opset, element type, an Add behind
KINDS = [
    ("conv", "Conv", (6, 3, 3, 3), (2, 3, 9, 9), {}, 13, TensorProto.FLOAT, False),
    ("conv7", "Conv", (5, 3, 3, 3), (2, 3, 9, 9), {}, 7, TensorProto.FLOAT, False),
    ("conv9", "Conv", (5, 3, 3, 3), (2, 3, 9, 9), {}, 9, TensorProto.FLOAT, False),
    ("conv1d", "Conv", (4, 3, 5), (2, 3, 11), {}, 17, TensorProto.FLOAT, False),
    ("depthwise", "Conv", (7, 1, 3, 3), (2, 7, 8, 8), {"group": 7}, 13, TensorProto.FLOAT, False),
    ("grouped", "Conv", (6, 2, 3, 3), (2, 6, 8, 8), {"group": 3}, 11, TensorProto.FLOAT, False),
    ("deconv", "ConvTranspose", (3, 5, 3, 3), (2, 3, 6, 6), {}, 13, TensorProto.FLOAT, False),
    ("gemm", "Gemm", (7, 29), (3, 29), {"transB": 1}, 13, TensorProto.FLOAT, False),
    ("gemm-plain", "Gemm", (29, 7), (3, 29), {}, 13, TensorProto.FLOAT, False),
    ("gemm-double", "Gemm", (7, 29), (3, 29), {"transB": 1}, 13, TensorProto.DOUBLE, False),
    ("gemm-half", "Gemm", (7, 29), (3, 29), {"transB": 1}, 13, TensorProto.FLOAT16, False),
    ("matmul-add", "MatMul", (29, 7), (3, 29), {}, 13, TensorProto.FLOAT, True),
    ("matmul-9", "MatMul", (29, 7), (3, 29), {}, 9, TensorProto.FLOAT, False),
    ("matmul-high", "MatMul", (29, 7), (2, 3, 29), {}, 13, TensorProto.FLOAT, True),
]
SCHEMES = [(s, b, g) for s, b in (("twn", "-"), ("ttq", "-"), ("fixed", "2"), ("fixed", "3"),
                                  ("fixed", "4"), ("fixed", "6"), ("fixed", "8"), ("affine", "4"),
                                  ("affine", "8"), ("dorefa", "2"))
           for g in ("tensor", "channel", "group:4", "group:9")]


def build(kind, path):
    name, op, shape, input_shape, attributes, opset, dtype, with_add = kind
    random = numpy.random.default_rng(oracle.SEED)
    element = helper.tensor_dtype_to_np_dtype(dtype)
    weight = numpy_helper.from_array(random.standard_normal(shape).astype(element), "layer.weight")
    columns = shape[0 if attributes.get("transB") else -1]
    bias = numpy_helper.from_array(random.standard_normal(columns).astype(element), "layer.bias")
    inputs = ["x", "layer.weight"] + (["layer.bias"] if op == "Gemm" else [])
    nodes = [helper.make_node(op, inputs, ["sum" if with_add else "y"], name="layer", **attributes)]
    if with_add:
        nodes.append(helper.make_node("Add", ["sum", "layer.bias"], ["y"], name="bias"))
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("x", dtype, input_shape)],
        [helper.make_tensor_value_info("y", dtype, [None] * len(input_shape))],
        [weight] + ([bias] if with_add or op == "Gemm" else []))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    onnx.save(model, path)
    return random.standard_normal(input_shape).astype(element)


def check(kind, folder):
    source = os.path.join(folder, "model.onnx")
    data = build(kind, source)
    held = 0
    for scheme in SCHEMES:
        ends = (*scheme, "first=" + ("8" if scheme[1] == "-" else scheme[1]),
                "last=" + ("8" if scheme[1] == "-" else scheme[1]))
        if scheme[1] == "-":
            ends = (*scheme, "first=1.58", "last=1.58")
        reference = os.path.join(folder, "float.onnx")
        packed = oracle.pack(source, reference, "float", ends)
        if packed.returncode != 0:
            oracle.fail(f"{kind[0]} {scheme} float: {packed.stderr}")
            continue
        expected = oracle.run(reference, data)
        for form in oracle.FORMS:
            output = os.path.join(folder, "packed.onnx")
            packed = oracle.pack(source, output, form, ends)
            if packed.returncode == oracle.USAGE and form in ("qdq", "int8-lut"):
                continue
            if packed.returncode != 0:
                oracle.fail(f"{kind[0]} {scheme} {form}: {packed.stderr}")
                continue
            held += 1
            try:
                onnx.checker.check_model(output, full_check=True)
                d = oracle.difference(oracle.run(output, data), expected)
            except Exception as error:
                oracle.fail(f"{kind[0]} {scheme} {form}: {error}")
                continue
            unfolded = 2e-3 if kind[6] == TensorProto.FLOAT16 else oracle.TOLERANCE
            if not d <= (unfolded if form in ("qdq", "int8-lut") else 0):
                oracle.fail(f"{kind[0]} {scheme} {form}: differs by {d:.3g}")
    print(f"{kind[0]}: {held} files", flush=True)


def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for kind in KINDS:
            check(kind, folder)
    if oracle.failures:
        print(f"{len(oracle.failures)} failures (seed {oracle.SEED})")
        sys.exit(1)


if __name__ == "__main__":
    main()
