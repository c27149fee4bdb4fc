"""A child with good keys that asks for all a parent has, without end."""
