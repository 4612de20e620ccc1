"""The vLLM engines' room: their requirements and the embedded model (`embedded_model.py`)."""
