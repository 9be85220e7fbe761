/* bulk BYTES SEED [FILE]: writes that many bytes which cannot be compressed, quickly, the same for
 * the same seed, to FILE or standard output. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char** argv) {
  static uint64_t block[1 << 17];
  if (argc < 3) return 2;
  unsigned long long left = strtoull(argv[1], NULL, 10);
  uint64_t x = strtoull(argv[2], NULL, 10) * 2 + 0x9e3779b97f4a7c15u;
  int out = argc > 3 ? open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0644) : STDOUT_FILENO;
  if (out < 0) return 1;
  while (left > 0) {
    for (size_t i = 0; i < sizeof block / sizeof *block; ++i) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      block[i] = x;
    }
    const char* bytes = (const char*)block;
    size_t size = left < sizeof block ? (size_t)left : sizeof block;
    left -= size;
    while (size > 0) {
      ssize_t written = write(out, bytes, size);
      if (written <= 0) return 1;
      bytes += written;
      size -= (size_t)written;
    }
  }
  return 0;
}
