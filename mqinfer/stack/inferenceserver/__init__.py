"""An inference server of our own: Triton's gRPC protocol over ONNX Runtime, where Triton is not.

For laptops without Triton's wheel or the NumPy that it needs. It reads the same repository, answers
with the same codes and words, and runs each instance of a model in a process of its own: one that
dies takes down what it was at, and nothing else.
"""
