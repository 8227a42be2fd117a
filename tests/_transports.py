"""The transports whose workers run on this machine: one that is added joins here, and is tested with the others."""

TRANSPORTS = ("stdio", "shm", "grpc", "memory")
OF_PROCESSES = tuple(name for name in TRANSPORTS if name != "memory")
