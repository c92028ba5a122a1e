"""standard_cases.py GRAPH_DUMP: shapes and folded values against the node test cases that the onnx
package generates."""
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

warnings.filterwarnings("ignore")
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

from operators import dump  # noqa: E402

# The case does what only training does, or its expected output is random.
EXCEPT = ("training_dropout", "test_dropout_random", "batchnorm_example_training_mode",
          "batchnorm_epsilon_training_mode")


def folded(model, inputs):
    """The model with the case's inputs as initializers; None when some are no tensors."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.input[:]
    for info, value in zip(model.graph.input, inputs):
        if not info.type.HasField("tensor_type") or not isinstance(value, (np.ndarray, np.generic)):
            return None
        kind = info.type.tensor_type.elem_type
        if kind == TensorProto.STRING:
            return None
        array = np.asarray(value)
        initializer = numpy_helper.from_array(array, info.name)
        if initializer.data_type != kind:
            return None
        result.graph.initializer.append(initializer)
    result.ir_version = max(4, min(13, model.ir_version))
    return result


def compare(fields, info, expected, tolerance):
    """(what differs or '', whether the value was folded)"""
    if int(fields[0]) != info.type.tensor_type.elem_type:
        return f"type {fields[0]}, expected {info.type.tensor_type.elem_type}", False
    if fields[1] == "?" or "-1" in fields[1].split():
        return "", False
    if fields[1].split() != [str(d) for d in expected.shape]:
        return f"shape [{fields[1]}], expected {list(expected.shape)}", False
    if len(fields) < 3:
        return "", False
    values = np.array([float(v) for v in fields[2].split()]).reshape(expected.shape)
    want = expected.astype(np.float64)
    if not np.allclose(values, want, rtol=tolerance[0], atol=tolerance[1], equal_nan=True):
        return f"{values.flatten()[:8]}, expected {want.flatten()[:8]}", True
    return "", True


def main():
    program = sys.argv[1]
    checked, known, failures, unfolded = 0, 0, 0, {}
    for case in collect_testcases(None):
        model = case.model
        opset = {o.domain: o.version for o in model.opset_import}
        if (set(opset) != {""} or not 7 <= opset[""] <= 25 or len(model.graph.node) != 1
                or any(part in case.name for part in EXCEPT)):
            continue
        inputs, outputs = case.data_sets[0]
        constant = folded(model, inputs)
        if constant is None:
            continue
        got = dump(program, constant)
        op = model.graph.node[0].op_type
        if "error" in got:
            failures += 1
            print(f"{case.name}: refused: {got['error'][1]}")
            continue
        for info, expected in zip(model.graph.output, outputs):
            if info.name not in got or not isinstance(expected, (np.ndarray, np.generic)):
                continue
            fields = got[info.name]
            if fields[:2] == ["0", "?"]:
                continue
            checked += 1
            message, was_folded = compare(fields, info, np.asarray(expected), (case.rtol, case.atol))
            known += was_folded
            if not was_folded:
                unfolded[op] = unfolded.get(op, 0) + 1
            if message:
                failures += 1
                print(f"{case.name}: {info.name}: {message}")
    print(f"{checked} outputs compared, {known} with values, {failures} differ; "
          f"shape alone: {dict(sorted(unfolded.items()))}")
    return failures > 0 or known < 300


if __name__ == "__main__":
    sys.exit(main())
