"""The vLLM engines' room: their requirements and the embedded model (`model.py`)."""
