#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "two_gpus/heat.h"

namespace samples::two_gpus {

// What iterates: some GPUs, or the CPU in the place of some.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual std::string device() const = 0;
  virtual void load(const Field& field) = 0;
  // Returns the largest change of a cell in the last of them. At least one.
  virtual float run(std::uint64_t iterations) = 0;
  virtual void store(Field& field) = 0;
};

using MachineFactory = std::function<std::unique_ptr<Machine>(const Plate& plate, unsigned gpus)>;

// Bytes on each of so many GPUs, at most: two arrays, and the largest change.
std::uint64_t bytes_per_gpu(const Plate& plate, unsigned gpus);

// The same division and exchange on one core of the CPU.
class Emulation : public Machine {
 public:
  Emulation(const Plate& plate, unsigned parts);
  std::string device() const override { return "CPU"; }
  void load(const Field& field) override;
  float run(std::uint64_t iterations) override;
  void store(Field& field) override;

 private:
  struct Half {
    Part part;
    std::vector<float> now, next;
  };
  void exchange();

  Plate plate_;
  std::vector<Half> halves_;
};

}  // namespace samples::two_gpus
