// The samples' arguments: --name value, --name=value and --flag, each with its range, and a --help
// made of them. PESC's own arguments are taken out first, long and short, wherever they stand.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace samples {

class Arguments {
 public:
  // `about`: one or a few lines for --help. The targets keep their values when nothing is given.
  Arguments(std::string program, std::string about);

  void number(const std::string& name, std::uint64_t* target, std::uint64_t low, std::uint64_t high,
              const std::string& help);
  void real(const std::string& name, double* target, double low, double high,
            const std::string& help);
  void choice(const std::string& name, std::string* target, const std::vector<std::string>& values,
              const std::string& help);
  void word(const std::string& name, std::string* target, const std::string& help);
  // --seed; not given, PESC_SEED, or alone what rank.h has in its place.
  void seed(std::uint64_t* target);
  void flag(const std::string& name, bool* target, const std::string& help);

  // Reads the arguments that the contract leaves. False: --help was asked for and has been printed.
  // Throws Failure(kUsage). Fills in rank.h's values as a side effect.
  bool parse(int argc, char** argv);

  std::string help() const;

 private:
  struct Option {
    std::string name, value_name, initial, help;
    std::function<void(const std::string&)> set;
    bool* flag;
  };
  [[noreturn]] void refuse(const std::string& what) const;
  void add(const std::string& name, const std::string& value_name, const std::string& initial,
           const std::string& help, std::function<void(const std::string&)> set);
  const Option* find(const std::string& name) const;

  std::string program_, about_;
  std::vector<Option> options_;
  std::uint64_t* seed_ = nullptr;  // still to be filled in
};

}  // namespace samples
