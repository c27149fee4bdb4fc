"""Performs: storage, gRPC, identity files, scheduler, command line."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is first imported; we log failed handshakes in words

__version__ = "0.1.0"
