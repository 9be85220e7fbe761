// The thesis's Example 2: the integral of sin²(x) over [-1, 1] by the trapezoidal rule, for each
// precision of this rank's range. Ten ranks share 0 … 1,000,000 as in the thesis's Table 5: rank r
// takes [100,000 r, 100,000 (r + 1)) in steps of 1,000.
//
//   integral [UPPER]           UPPER: the end of the whole range, default 1,000,000
//
// A line per precision: its number in the rank, the precision, the integral, and the distance
// between the upper and the lower sum of rectangles.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "pesc/rank.h"

namespace {

struct Integral {
  double value = 0, error = 0;
};

double function(double x) { return std::sin(x) * std::sin(x); }

Integral integrate(double low, double high, long points) {
  Integral out;
  double step = points > 1 ? (high - low) / static_cast<double>(points - 1) : 0;
  double before = function(low), lower = 0, upper = 0;
  for (long i = 1; i < points; ++i) {
    double now = function(low + step * static_cast<double>(i));
    out.value += (before + now) * step / 2;
    lower += before * step;
    upper += now * step;
    before = now;
  }
  out.error = upper - lower;
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  pesc_take_args(&argc, argv);
  long upper = argc > 1 ? std::atol(argv[1]) : 1'000'000;
  int world = pesc_world_size(), rank = pesc_rank();
  if (upper < world) {
    std::fprintf(stderr, "integral: the range must be at least as large as the number of ranks\n");
    return 2;
  }
  long share = upper / world, begin = share * rank, end = rank + 1 == world ? upper : begin + share;
  long step = upper >= 1'000 ? upper / 1'000 : 1, index = 0;
  for (long points = begin; points < end; points += step, ++index) {
    Integral integral = integrate(-1, 1, points);
    std::printf("%ld, %ld, %.15f, %.3e\n", index, points, integral.value, integral.error);
    pesc_progress(static_cast<double>(points - begin) / static_cast<double>(end - begin), "");
  }
  return 0;
}
