/* A program that becomes N ranks: it says which one it is. */
#include <stdio.h>

#include "pesc/rank.h"

int main(int argc, char** argv) {
  pesc_take_args(&argc, argv);
  printf("hello from rank %d of %d\n", pesc_rank(), pesc_world_size());
  return 0;
}
