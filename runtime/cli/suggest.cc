#include "runtime/cli/suggest.h"

#include <algorithm>

namespace pesc::cli {
namespace {

size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::string> nearest(const std::string& typed,
                                   const std::vector<std::string>& words) {
  const std::string* best = nullptr;
  size_t best_distance = 3;
  for (const std::string& word : words) {
    // A word that was begun rightly is nearer than one with as many letters changed.
    bool begun = typed.size() >= 4 && word.compare(0, typed.size(), typed) == 0;
    size_t d = begun ? 1 : distance(typed, word);
    if (d < best_distance && d < std::max(typed.size(), size_t{2}) - 1) {
      best = &word;
      best_distance = d;
    }
  }
  if (best == nullptr || *best == typed) return std::nullopt;
  return *best;
}

std::string suggestion(const std::string& typed, const std::vector<std::string>& words) {
  std::optional<std::string> best = nearest(typed, words);
  return best ? " (did you mean '" + *best + "'?)" : "";
}

}  // namespace pesc::cli
