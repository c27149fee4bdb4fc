"""Performs: storage, gRPC, identity files, scheduler, command line."""

__version__ = "0.1.0"
