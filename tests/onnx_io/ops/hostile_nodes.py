"""hostile_nodes.py GRAPH_DUMP [COUNT [SEED]]: one-node models with absurd attributes, inputs and
shapes: an error or a result, in under a second, never a crash."""
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import helper

import single_node

EXTREMES = [0, -1, 1, -2, 2**31 - 1, 2**31, -2**31, 2**32, 2**40, 2**62, 2**63 - 1, -2**63, 17, 100]


def extreme(rng):
    return int(single_node.choice(rng, EXTREMES))


def spoil_list(rng, values):
    values = list(values)
    kind = int(rng.integers(0, 4))
    if kind == 0 and values:
        values[int(rng.integers(0, len(values)))] = extreme(rng)
    elif kind == 1:
        values = values[:int(rng.integers(0, len(values) + 1))]
    elif kind == 2:
        values += [extreme(rng) for _ in range(int(rng.integers(1, 40)))]
    else:
        values = [extreme(rng) for _ in values]
    return values


def spoil_attribute(rng, node):
    attributes = [a for a in node.attribute if a.type in (onnx.AttributeProto.INT,
                                                          onnx.AttributeProto.INTS)]
    if not attributes or rng.integers(0, 6) == 0:
        names = ["axis", "group", "blocksize", "block_size", "to", "num_outputs", "start", "end", "k",
                 "keepdims", "ceil_mode", "output_dtype"]
        lists = ["axes", "pads", "strides", "dilations", "kernel_shape", "perm", "split", "starts",
                 "ends", "output_shape", "output_padding"]
        if rng.integers(0, 2):
            name, value = single_node.choice(rng, names), extreme(rng)
        else:
            name = single_node.choice(rng, lists)
            value = [extreme(rng) for _ in range(int(rng.integers(1, 8)))]
        for a in list(node.attribute):
            if a.name == name:
                node.attribute.remove(a)
        node.attribute.append(helper.make_attribute(name, value))
        return
    a = single_node.choice(rng, attributes)
    if a.type == onnx.AttributeProto.INT:
        a.i = extreme(rng)
    else:
        values = spoil_list(rng, a.ints)
        del a.ints[:]
        a.ints.extend(values)


def spoil(rng, model):
    graph = model.graph
    node = graph.node[0]
    kind = int(rng.integers(0, 6))
    if kind <= 1:
        spoil_attribute(rng, node)
    elif kind == 2 and graph.initializer:
        t = single_node.choice(rng, list(graph.initializer))
        if t.data_type == onnx.TensorProto.INT64:
            values = spoil_list(rng, onnx.numpy_helper.to_array(t).flatten().tolist())
            t.CopyFrom(helper.make_tensor(t.name, t.data_type, [len(values)], values))
    elif kind == 3 and graph.input:
        shape = single_node.choice(rng, list(graph.input)).type.tensor_type.shape
        if rng.integers(0, 2) and shape.dim:
            shape.dim[int(rng.integers(0, len(shape.dim)))].dim_value = abs(extreme(rng)) % 2**63
        else:
            for _ in range(int(rng.integers(1, 16))):
                shape.dim.add().dim_value = abs(extreme(rng)) % 2**63
    elif kind == 4 and node.input:
        at = int(rng.integers(0, len(node.input)))
        if rng.integers(0, 2):
            node.input[at] = ""
        elif rng.integers(0, 2):
            del node.input[at]
        else:
            node.input.append(node.input[at])
    elif kind == 5:
        node.op_type = single_node.choice(rng, ["Conv", "Gemm", "Concat", "Slice", "Pad", "Reshape",
                                                "Expand", "Tile", "Range", "ConstantOfShape",
                                                "Gather", "Split", "DequantizeLinear", "Resize",
                                                "TopK", "Squeeze", "Unsqueeze", "MaxPool", "Where"])


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("TERNION_SEED") or np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}", flush=True)
    rng = np.random.default_rng(seed)
    failures = refused = 0
    for number in range(count):
        generate = single_node.GENERATORS[number % len(single_node.GENERATORS)]
        case = generate(rng, int(rng.integers(7, 26)))
        if case is None:
            continue
        model = single_node.build(case, bool(rng.integers(0, 2)))
        for _ in range(int(rng.integers(1, 4))):
            spoil(rng, model)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(model.SerializeToString())
            file.flush()
            start = time.monotonic()
            done = subprocess.run([program, file.name], capture_output=True, text=True, timeout=60)
            seconds = time.monotonic() - start
        refused += done.stdout.startswith("error")
        if done.returncode != 0 or seconds > 5:
            failures += 1
            print(f"exit {done.returncode} after {seconds:.1f} s: {done.stderr[-2000:]}")
            print(helper.printable_graph(model.graph)[:2000], flush=True)
    print(f"{count} models, {refused} refused, {failures} crashed or hung")
    return failures > 0 or refused == 0


if __name__ == "__main__":
    sys.exit(main())
