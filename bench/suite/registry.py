"""The benchmarks by name, in the order in which they run."""
BENCHMARKS = {}


def benchmark(name, title):
    def register(function):
        BENCHMARKS[name] = (title, function)
        return function
    return register
