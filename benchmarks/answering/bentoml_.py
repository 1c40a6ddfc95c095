"""BentoML with its adaptive batching, around ONNX Runtime in its worker: nothing is kept.

A body of a batchable API is a batch itself, here of one number.
"""

# Without `from __future__ import annotations`: BentoML reads those of the handler.
import os

import bentoml
import numpy as np
from numpy.typing import NDArray

BATCH = 64


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Affine:
    def __init__(self) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = InferenceSession(os.environ["BENCH_MODEL"], options)

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.session.run(None, {"x": x.astype(np.float32)})[0]
