#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "dijkstra/machine.h"

namespace samples::dijkstra {

// The same steps on the CPU: slower, and for tests in any order and on several threads, as a GPU
// would take them.
class Emulation : public Machine {
 public:
  // `shuffle`: 0 takes vertices and edges in order, other values in other orders.
  Emulation(const GraphSpec& spec, const Layout& layout, std::uint64_t shuffle = 0,
            unsigned threads = 1);

  std::string device() const override { return "CPU"; }

 protected:
  void* memory() override { return memory_.get(); }
  void upload(void* to, const void* from, std::uint64_t bytes) override;
  void download(void* to, const void* from, std::uint64_t bytes) override;
  void build(const Slices& slices) override;
  void phase(const Slices& slices) override;

 private:
  template <class Step>
  void each(std::uint64_t count, const Step& step);
  template <class Step>
  void each_between(std::uint64_t begin, std::uint64_t end, std::uint64_t count, const Step& step);

  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  std::uint64_t shuffle_;
  unsigned threads_;
};

}  // namespace samples::dijkstra
