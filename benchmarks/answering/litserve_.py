"""LitServe with its own batching, around ONNX Runtime in its worker: nothing is kept.

`python -m benchmarks.answering.litserve_ PORT SERVERS`: processes that answer HTTP, before one that
has the model.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import litserve
import numpy as np

BATCH = 64


class Affine(litserve.LitAPI):
    """The hooks of LitServe."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - called so
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = InferenceSession(os.environ["BENCH_MODEL"], options)

    def decode_request(self, request: dict[str, float]) -> float:
        return request["x"]

    def batch(self, inputs: list[float]) -> Any:
        return np.array(inputs, np.float32)[:, None]

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output: Any) -> list[float]:
        return [float(one) for one in output[:, 0]]

    def encode_response(self, output: float) -> dict[str, float]:
        return {"y": output}


if __name__ == "__main__":
    wait = float(os.environ.get("BENCH_BATCH_WAIT", "0.001"))
    server = litserve.LitServer(
        Affine(max_batch_size=BATCH, batch_timeout=wait),
        accelerator="cpu",
        workers_per_device=1,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=int(sys.argv[2]),
        log_level="warning",
        generate_client_file=False,
    )
