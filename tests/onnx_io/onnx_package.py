"""Models made by the onnx package, with every message the format has, are rewritten byte for byte
and external data both ways; usage: onnx_package.py REWRITE-TOOL"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

tool = sys.argv[1]
seed = 20
random = np.random.default_rng(seed)
print("seed", seed)


def value(name, shape=("n", 4)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def rewrite(source, target, *options):
    done = subprocess.run([tool, source, target, *options], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source.name}: {done.stderr}")


def make(graph, opset=21, ir=10, **more):
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **more
    )


def plain_graph(initializers=(), nodes=()):
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu", doc_string="text")
    return helper.make_graph([relu, *nodes], "g", [value("x")], [value("y")], list(initializers))


def every_type():
    """All tensor types, in raw data and in typed fields."""
    tensors = []
    for dtype in TensorProto.DataType.values():
        name = TensorProto.DataType.Name(dtype)
        if dtype == TensorProto.UNDEFINED or name in ("FLOAT6E2M3", "FLOAT6E3M2"):
            continue
        for count in (0, 1, 5, 3000):
            tensor = TensorProto(name=f"{name}_{count}", data_type=dtype, dims=[count])
            if dtype == TensorProto.STRING:
                tensor.string_data.extend(b"\xff\x00text" for _ in range(count))
            else:
                bits = {"COMPLEX128": 128, "COMPLEX64": 64}.get(name)
                if bits is None:
                    digits = "".join(c for c in name.split("E")[0] if c.isdigit())
                    bits = int(digits) if digits else {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}[name]
                tensor.raw_data = random.bytes((count * bits + 7) // 8)
            tensors.append(tensor)
    numbers = np.arange(-1500, 1500)
    for dtype in ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
                  "int64", "uint64", "bool", "complex64", "complex128", "float16"):
        array = numbers.astype(dtype)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        data = array.view(np.uint16) if dtype == "float16" else array
        data = array.astype(np.int32) if dtype == "bool" else data
        tensor = TensorProto(name="typed_" + dtype, data_type=kind, dims=[3000])
        field = {"float32": "float_data", "complex64": "float_data", "float64": "double_data",
                 "complex128": "double_data", "int64": "int64_data", "uint64": "uint64_data",
                 "uint32": "uint64_data"}.get(dtype, "int32_data")
        if dtype.startswith("complex"):
            data = array.view("float32" if dtype == "complex64" else "float64")
        getattr(tensor, field).extend(data.tolist())
        tensors.append(tensor)
    return make(plain_graph(tensors), opset=25, ir=13)


def everything_else():
    """Functions, training, sparse tensors, sequence, map, optional, annotations, devices."""
    model = make(plain_graph())
    graph = model.graph
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.float32([1, 2]), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.int64([0, 3]), "at"))
    sparse.dims.extend([4])
    for name, kind in (
        ("s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1]))),
        ("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, None))),
        ("m", helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, ["a", 2]))),
        ("p", helper.make_sparse_tensor_type_proto(1, [2])),
    ):
        graph.value_info.append(helper.make_value_info(name, kind))
    annotation = graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    graph.metadata_props.add(key="graph", value="")
    graph.node[0].metadata_props.add(key="node", value="\u00e9\u4e2d\U0001f600")
    device = graph.node[0].device_configurations.add(configuration_id="c", pipeline_stage=0)
    shard = device.sharding_spec.add(tensor_name="x", device=[0, 1])
    shard.index_to_device_group_map.add(key=0, value=[0, 1])
    shard.sharded_dim.add(axis=0).simple_sharding.add(dim_param="n", num_shards=2)
    shard.sharded_dim.add(axis=1).simple_sharding.add(dim_value=0, num_shards=2)
    model.configuration.add(name="c", num_devices=2, device=["a", "b"])
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 21)], ["attribute"])
    function.attribute_proto.append(helper.make_attribute("alpha", 0.0))
    function.value_info.append(value("a"))
    function.overload = "again"
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    training = model.training_info.add()
    training.algorithm.CopyFrom(plain_graph())
    training.initialization.CopyFrom(plain_graph())
    training.update_binding.add(key="a", value="b")
    model.metadata_props.add(key="model", value="value")
    model.model_version = 0
    model.doc_string = ""
    big = random.standard_normal(5000).astype(np.float32)
    holder = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(big))
    graph.node.append(holder)
    lists = helper.make_node("Custom", ["c"], ["d", ""], domain="local", floats=[0.5, 1.0],
                             ints=[0, -1], strings=[b"\x00\xff", b""], i=0, f=0.0, s=b"",
                             tensors=[numpy_helper.from_array(big)])
    lists.attribute.append(onnx.AttributeProto(name="g", type=onnx.AttributeProto.GRAPHS))
    graph.node.append(lists)
    return model


def branches():
    big = random.standard_normal((64, 64)).astype(np.float32)
    def branch(name):
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", name + "w"], [name])], name, [],
            [value(name, ("n", 64))], [numpy_helper.from_array(big, name + "w")])
    node = helper.make_node("If", ["flag"], ["z"], then_branch=branch("t"), else_branch=branch("e"))
    graph = helper.make_graph([node], "g", [value("x", ("n", 64)),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, [])], [value("z", ("n", 64))])
    return make(graph, opset=17, ir=8)


def elements(model):
    return [
        list(t.string_data) if t.data_type == TensorProto.STRING
        else numpy_helper.to_array(t).tobytes()
        for t in model.graph.initializer
    ]


def check(name, model, folder):
    source = folder / f"{name}.onnx"
    target = folder / f"{name}-out.onnx"
    source.write_bytes(model.SerializeToString(deterministic=True))
    rewrite(source, target)
    if source.read_bytes() != target.read_bytes():
        sys.exit(f"{name}: the rewritten file differs")
    apart = folder / f"{name}-apart.onnx"
    rewrite(source, apart, "external")
    loaded = onnx.load(apart)
    if elements(model) != elements(loaded):
        sys.exit(f"{name}: external data differs")
    for entry in onnx.load(apart, load_external_data=False).graph.initializer:
        for pair in entry.external_data:
            if pair.key == "offset" and int(pair.value) % 4096:
                sys.exit(f"{name}: offset {pair.value}")
    joined = folder / f"{name}-joined.onnx"
    rewrite(apart, joined)
    onnx.load(joined)
    beside = folder / f"{name}-beside.onnx"
    onnx.save(model, beside, save_as_external_data=True, location=f"{name}.bin",
              size_threshold=0, convert_attribute=name == "branches")
    rewrite(beside, folder / f"{name}-back.onnx")
    back = onnx.load(folder / f"{name}-back.onnx")
    if elements(onnx.load(source)) != elements(back):
        sys.exit(f"{name}: the package's external data came back different")
    print("ok", name)


with tempfile.TemporaryDirectory() as where:
    where = pathlib.Path(where)
    check("types", every_type(), where)
    check("everything", everything_else(), where)
    check("branches", branches(), where)
