"""Decides: registry model, sealing, codec, verification, exchange, merge planning. Performs nothing."""
