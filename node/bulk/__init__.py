"""Files of many rows: what Excel writes comes in, what people read goes out."""
