"""What several files share: a client of the module's `triton` and its calls, and an S3 server."""

from __future__ import annotations

from tests.support.s3 import bucket, s3_endpoint
from tests.support.triton import inference, server

__all__ = ["bucket", "inference", "s3_endpoint", "server"]
