"""A fresh process to the first output of a model, by a peer; says when it was there."""

import json
import sys
import time

import numpy as np

from engines import status


def main():
    engine, model, weights, onnx, source, output = sys.argv[1:]
    x = np.load(source)
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        y = session.run(None, {session.get_inputs()[0].name: x})[0]
    else:
        import torch

        import nets

        torch.set_num_threads(1)
        with torch.inference_mode():
            y = nets.build(model, weights)(torch.from_numpy(x)).numpy()
    done = time.monotonic()
    np.save(output, y)
    print(json.dumps({"done": done, "peak": status("VmHWM:")}))


if __name__ == "__main__":
    main()
