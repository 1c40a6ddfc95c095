"""Servers that answer y = 2 x + 1 by HTTP, each as its own docs have it: what `requests` compares.

`BENCH_TRITON` says where Triton is, `BENCH_MODEL` where the model's file, `BENCH_BROKER` Redis.
"""
