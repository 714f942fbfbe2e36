"""monitor: how every module of the mesh is, as one stream.

It asks each module by the standard health protocol of gRPC, wherever the module runs.
"""
