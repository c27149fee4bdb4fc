"""The node's database: capture, seal, apply, and what they stand on."""
