// The thesis's Example 1: numbers of a normal distribution, by the Box-Muller transformation (Box
// and Muller, 1958) over the linear congruential generator with m = 2^31, a = 1103515245, c =
// 12345.
//
//   gaussian [PAIRS [WHAT]]    WHAT: "summary" (default) or "numbers"
//
// As the student's program, it knows its rank only to start its generator elsewhere.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "pesc/rank.h"

namespace {

class Uniform {
 public:
  explicit Uniform(uint64_t seed) : x_(seed % kModulus) {}
  double next() {
    x_ = (kMultiplier * x_ + kIncrement) % kModulus;
    return (static_cast<double>(x_) + 0.5) / static_cast<double>(kModulus);
  }

 private:
  static constexpr uint64_t kModulus = uint64_t{1} << 31;
  static constexpr uint64_t kMultiplier = 1103515245;
  static constexpr uint64_t kIncrement = 12345;
  uint64_t x_;
};

}  // namespace

int main(int argc, char** argv) {
  pesc_take_args(&argc, argv);
  long pairs = argc > 1 ? std::atol(argv[1]) : 1'000'000;
  bool numbers = argc > 2 && std::strcmp(argv[2], "numbers") == 0;
  if (pairs <= 0) {
    std::fprintf(stderr, "gaussian: '%s' is no number of pairs\n", argv[1]);
    return 2;
  }
  Uniform uniform(pesc_seed());
  double sum = 0, squares = 0;
  for (long i = 0; i < pairs; ++i) {
    double radius = std::sqrt(-2 * std::log(uniform.next()));
    double angle = 2 * M_PI * uniform.next();
    double first = radius * std::cos(angle), second = radius * std::sin(angle);
    sum += first + second;
    squares += first * first + second * second;
    if (numbers) std::printf("%.17g, %.17g\n", first, second);
  }
  double count = 2.0 * static_cast<double>(pairs), mean = sum / count;
  if (!numbers) {
    std::printf("rank %d: %.0f numbers, mean %.6f, variance %.6f\n", pesc_rank(), count, mean,
                squares / count - mean * mean);
  }
  return 0;
}
