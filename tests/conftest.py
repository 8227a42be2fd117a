"""What holds for every test: both loops, no leaks, no blocked loop, no unexplained skip."""

pytest_plugins = [
    "_backends",
    "_leaks",
    "_skips",
    "_seeds",
    "_measured",
    "_shares",
    "_order",
    "pytester",
]
