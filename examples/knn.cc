// The thesis's scenario 2: k-nearest-neighbours classification, one k per rank. The data (Fisher's
// iris measurements, 1936; label in the last column) is a shared file, the k's are the parameters:
//
//   pesc run -n 5 --parameters 1,5,10,15,20 --shared-file iris.csv -- ./knn iris.csv
//
// Leave-one-out: each flower is classified by its k nearest among all others (Euclidean distance;
// among labels with equally many votes the nearest decides).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "pesc/rank.h"

namespace {

struct Flower {
  std::vector<double> measures;
  std::string label;
};

std::vector<Flower> read(const char* path) {
  std::vector<Flower> flowers;
  std::ifstream in(path);
  std::string line, field;
  std::getline(in, line);  // the heading
  while (std::getline(in, line)) {
    Flower flower;
    std::stringstream fields(line);
    while (std::getline(fields, field, ',')) {
      char* end = nullptr;
      double value = std::strtod(field.c_str(), &end);
      if (*end == '\0') {
        flower.measures.push_back(value);
      } else {
        flower.label = field;
      }
    }
    if (!flower.label.empty()) flowers.push_back(std::move(flower));
  }
  return flowers;
}

std::string classify(const std::vector<Flower>& flowers, size_t which, size_t k) {
  std::vector<std::pair<double, size_t>> distances;
  for (size_t i = 0; i < flowers.size(); ++i) {
    if (i == which) continue;
    double distance = 0;
    for (size_t j = 0; j < flowers[i].measures.size(); ++j) {
      double d = flowers[i].measures[j] - flowers[which].measures[j];
      distance += d * d;
    }
    distances.emplace_back(distance, i);
  }
  k = std::min(k, distances.size());
  std::partial_sort(distances.begin(), distances.begin() + static_cast<long>(k), distances.end());
  std::map<std::string, size_t> votes;
  std::string best = flowers[distances[0].second].label;
  for (size_t i = 0; i < k; ++i) ++votes[flowers[distances[i].second].label];
  for (size_t i = 0; i < k; ++i) {
    const std::string& label = flowers[distances[i].second].label;
    if (votes[label] > votes[best]) best = label;
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  pesc_take_args(&argc, argv);
  if (argc < 2 || pesc_parameter_count() <= pesc_rank()) {
    std::fprintf(stderr, "usage: knn DATA.csv, with a k per rank as --parameters k0 k1 …\n");
    return 2;
  }
  long k = std::atol(pesc_parameter(pesc_rank()));
  std::vector<Flower> flowers = read(argv[1]);
  if (k < 1 || flowers.size() < 2) {
    std::fprintf(stderr, "knn: '%s' is no k, or %s holds no data\n", pesc_parameter(pesc_rank()),
                 argv[1]);
    return 2;
  }
  size_t right = 0;
  for (size_t i = 0; i < flowers.size(); ++i) {
    right += classify(flowers, i, static_cast<size_t>(k)) == flowers[i].label;
  }
  std::printf("k = %ld: %zu of %zu right (%.1f %%)\n", k, right, flowers.size(),
              100.0 * static_cast<double>(right) / static_cast<double>(flowers.size()));
  return 0;
}
