#!/usr/bin/env python3
"""The golden values of dijkstra_graph_test.cc, from a second implementation of the generator."""
M = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & M, (p0 >> 32) ^ c[3] ^ k[1], p0 & M]
        k = [(k[0] + 0x9E3779B9) & M, (k[1] + 0xBB67AE85) & M]
    return c[0] | c[1] << 32, c[2] | c[3] << 32


def random_at(seed, index, stream):
    return philox([index & M, index >> 32, stream, 0], [seed & M, seed >> 32])


SEED, VERTICES, DEGREE, WEIGHT = 42, 1000, 8, 100
degrees = []
for pair in range(3):
    h = random_at(SEED, pair, 1)[0] * (2 * DEGREE + 1) >> 64
    degrees += [h, 2 * DEGREE - h]
print(", ".join(map(str, degrees)))
edges = [random_at(SEED, e, 2) for e in range(4)]
print(", ".join(f"{{{low * VERTICES >> 64}, {1 + (high * WEIGHT >> 64)}}}" for low, high in edges))
