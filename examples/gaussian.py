# A student's program as it was before anyone had heard of PESC: a million pairs of normally
# distributed numbers (Box-Muller over a linear congruential generator), their mean and variance.
#
#   pesc run -n 5 --inject env -- python3 gaussian.py 1000000
import math
import sys
import time

MODULUS, MULTIPLIER, INCREMENT = 2**31, 1103515245, 12345


def uniform(seed):
    x = seed % MODULUS
    while True:
        x = (MULTIPLIER * x + INCREMENT) % MODULUS
        yield (x + 0.5) / MODULUS


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    u = uniform(time.time_ns())
    total = squares = 0.0
    for _ in range(pairs):
        radius = math.sqrt(-2 * math.log(next(u)))
        angle = 2 * math.pi * next(u)
        for z in (radius * math.cos(angle), radius * math.sin(angle)):
            total += z
            squares += z * z
    mean = total / (2 * pairs)
    print(f"{2 * pairs} numbers, mean {mean:.6f}, variance {squares / (2 * pairs) - mean * mean:.6f}")


main()
