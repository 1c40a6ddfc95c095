"""What several files of this room share."""

from tests.support.s3 import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]
