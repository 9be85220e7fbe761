#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "option_pricing/option.h"

namespace samples::option_pricing {

// What computes chunks: a GPU, or the CPU in its place.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual std::string device() const = 0;
  // How many chunks take a moment: after each batch the program looks up.
  virtual std::uint64_t batch() const = 0;
  virtual void run(std::uint64_t first_chunk, std::vector<Sums>& chunks) = 0;
};

using MachineFactory =
    std::function<std::unique_ptr<Machine>(const Model& model, std::uint64_t paths)>;

class Emulation : public Machine {
 public:
  Emulation(const Model& model, std::uint64_t paths) : model_(model), paths_(paths) {}
  std::string device() const override { return "CPU"; }
  std::uint64_t batch() const override { return 1 + 64 / model_.steps; }
  void run(std::uint64_t first_chunk, std::vector<Sums>& chunks) override {
    for (std::uint64_t i = 0; i < chunks.size(); ++i) {
      chunks[i] = chunk_sums(model_, paths_, first_chunk + i);
    }
  }

 private:
  Model model_;
  std::uint64_t paths_;
};

}  // namespace samples::option_pricing
