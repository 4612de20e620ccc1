"""How services are kept running: the supervisor, the guard around each service, its log and its health."""
