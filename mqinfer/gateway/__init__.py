"""Gateway: the HTTP interface of an app's endpoints; any number of replicas, none keeps anything.

It stands on `mqinfer.requests`: whatever a client is told, any other replica tells the same.
"""
