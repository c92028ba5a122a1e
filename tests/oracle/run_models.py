"""Runs models in this interpreter's ONNX Runtime: a job per line on stdin, "MODEL INPUT.npy OUTPUT.npy".
Prints one line per job: "ok", or why the model did not load or run."""
import sys

import numpy
import onnxruntime


def main():
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for line in sys.stdin:
        model, source, result = line.split()
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            numpy.save(result, session.run(None, {name: numpy.load(source)})[0])
            print("ok", flush=True)
        except Exception as error:  # the message is the test's result
            print(str(error).replace("\n", " ")[:300], flush=True)


if __name__ == "__main__":
    main()
