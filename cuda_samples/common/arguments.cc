#include "common/arguments.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "common/failure.h"
#include "common/text.h"
#include "pesc/rank.h"

namespace samples {
namespace {

bool only_digits(const std::string& value) {
  return !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
}

std::string joined(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) out += (out.empty() ? "" : "|") + value;
  return out;
}

// PESC's arguments, which rank.h reads and leaves where they are. 0: none of them; 1: it stands
// alone
// (--rank=3); 2: its value follows; 3: all that follows is its values.
int contract_words(const std::string& word) {
  if (word == "-p" || word == "--parameters" || word.compare(0, 13, "--parameters=") == 0) return 3;
  if (word.size() == 2 && word[0] == '-' && std::strchr("acorwdt", word[1]) != nullptr) return 2;
  for (const char* name : {"--app_dir", "--checkpoint_dir", "--output_dir", "--rank",
                           "--world_size", "--master_addr", "--master_port"}) {
    if (word == name) return 2;
    if (word.compare(0, std::strlen(name) + 1, std::string(name) + "=") == 0) return 1;
  }
  return 0;
}

}  // namespace

Arguments::Arguments(std::string program, std::string about)
    : program_(std::move(program)), about_(std::move(about)) {}

void Arguments::refuse(const std::string& what) const {
  throw Failure(kUsage, what + "; " + program_ + " --help lists the arguments");
}

void Arguments::add(const std::string& name, const std::string& value_name,
                    const std::string& initial, const std::string& help,
                    std::function<void(const std::string&)> set) {
  options_.push_back({name, value_name, initial, help, std::move(set), nullptr});
}

void Arguments::number(const std::string& name, std::uint64_t* target, std::uint64_t low,
                       std::uint64_t high, const std::string& help) {
  add(name, "N", std::to_string(*target), help,
      [this, name, target, low, high](const std::string& value) {
        errno = 0;
        const std::uint64_t number =
            only_digits(value) ? std::strtoull(value.c_str(), nullptr, 10) : 0;
        if (!only_digits(value) || errno != 0 || number < low || number > high) {
          refuse("--" + name + " takes a whole number from " + std::to_string(low) + " to " +
                 std::to_string(high) + ", not '" + value + "'");
        }
        *target = number;
      });
}

void Arguments::real(const std::string& name, double* target, double low, double high,
                     const std::string& help) {
  add(name, "X", text("%g", *target), help,
      [this, name, target, low, high](const std::string& value) {
        char* end = nullptr;
        const double number = std::strtod(value.c_str(), &end);
        if (value.empty() || *end != '\0' || !(number >= low && number <= high)) {
          refuse("--" + name + " takes a number from " + text("%g", low) + " to " +
                 text("%g", high) + ", not '" + value + "'");
        }
        *target = number;
      });
}

void Arguments::choice(const std::string& name, std::string* target,
                       const std::vector<std::string>& values, const std::string& help) {
  add(name, joined(values), *target, help, [this, name, target, values](const std::string& value) {
    for (const std::string& known : values) {
      if (value == known) {
        *target = value;
        return;
      }
    }
    refuse("--" + name + " is one of " + joined(values) + ", not '" + value + "'");
  });
}

void Arguments::word(const std::string& name, std::string* target, const std::string& help) {
  add(name, "TEXT", *target, help, [this, name, target](const std::string& value) {
    if (value.empty()) refuse("--" + name + " is empty");
    *target = value;
  });
}

void Arguments::seed(std::uint64_t* target) {
  number("seed", target, 0, UINT64_MAX, "of the random numbers");
  options_.back().initial = "PESC_SEED, another for each rank";
  seed_ = target;
}

void Arguments::flag(const std::string& name, bool* target, const std::string& help) {
  options_.push_back({name, "", "", help, nullptr, target});
}

const Arguments::Option* Arguments::find(const std::string& name) const {
  for (const Option& option : options_) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

bool Arguments::parse(int argc, char** argv) {
  pesc_parse_args(argc, argv);  // the short ones too
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      std::fputs(help().c_str(), stdout);
      return false;
    }
    const int contract = contract_words(word);
    if (contract == 3) break;
    if (contract != 0) {
      i += contract - 1;
      continue;
    }
    const std::size_t equals = word.find('=');
    const Option* const option =
        word.compare(0, 2, "--") == 0
            ? find(word.substr(2, equals == std::string::npos ? equals : equals - 2))
            : nullptr;
    if (option == nullptr) refuse("unknown argument '" + word + "'");
    if (option->name == "seed") seed_ = nullptr;
    if (option->flag != nullptr) {
      if (equals != std::string::npos) refuse("--" + option->name + " takes no value");
      *option->flag = true;
    } else if (equals != std::string::npos) {
      option->set(word.substr(equals + 1));
    } else if (i + 1 < argc) {
      option->set(argv[++i]);
    } else {
      refuse("--" + option->name + " needs a value");
    }
  }
  if (seed_ != nullptr) *seed_ = pesc_seed();
  return true;
}

std::string Arguments::help() const {
  std::string out = "usage: " + program_ + " [ARGUMENTS]\n" + about_ + "\n\n";
  for (const Option& option : options_) {
    std::string left = "  --" + option.name;
    if (!option.value_name.empty()) left += " " + option.value_name;
    if (left.size() < 26) left.resize(26, ' ');
    out += left + " " + option.help;
    if (!option.initial.empty()) out += " (default: " + option.initial + ")";
    out += "\n";
  }
  return out +
         "\nPESC's arguments (--rank, --output_dir, ...) are understood too.\n"
         "Exit codes: 0 success, 1 other failures, 2 bad usage, 10 no GPU, 11 too little GPU "
         "memory,\n"
         "12 driver too old, 13 --verify found a difference, 14 fewer than two GPUs (two_gpus),\n"
         "15 no code for this model of GPU.\n";
}

}  // namespace samples
