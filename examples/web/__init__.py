"""Applications whose work is done by a pool: FastAPI on uvicorn, Quart on hypercorn."""
