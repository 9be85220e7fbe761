/* A rank that does nothing but print 4 KiB which no compressor can make much of.
 *   small_output            prints the bytes of rank $PESC_RANK
 *   small_output verify N   reads the merged output of N ranks: is it that, in order? */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kBytes = 4096 };

static void fill(uint32_t rank, char* out) {
  static const char kDigits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";
  uint64_t x = rank + 0x9e3779b97f4a7c15u;
  for (int i = 0; i < kBytes - 1; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    out[i] = kDigits[(x * 0x2545f4914f6cdd1du) >> 58];
  }
  char number[16];
  memcpy(out, number, (size_t)snprintf(number, sizeof number, "%u ", rank));
  out[kBytes - 1] = '\n';
}

static int verify(uint32_t ranks) {
  static char expected[kBytes], found[kBytes];
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    fill(rank, expected);
    if (fread(found, 1, kBytes, stdin) != kBytes || memcmp(expected, found, kBytes) != 0) {
      fprintf(stderr, "the output of rank %u is not what it printed\n", rank);
      return 1;
    }
  }
  if (getchar() != EOF) {
    fprintf(stderr, "there is more than %u ranks have printed\n", ranks);
    return 1;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "verify") == 0) return verify((uint32_t)atoi(argv[2]));
  const char* rank = getenv("PESC_RANK");
  static char bytes[kBytes];
  fill(rank ? (uint32_t)atoi(rank) : 0, bytes);
  return write(STDOUT_FILENO, bytes, kBytes) == kBytes ? 0 : 1;
}
