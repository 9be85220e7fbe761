// Whether a program died of an argument that PESC added to its command line.
#include <algorithm>
#include <array>

#include "model/contract.h"

namespace pesc {
namespace {

constexpr size_t kMaxExaminedBytes = 64 * 1024;
constexpr size_t kMaxLineBytes = 8 * 1024;

constexpr std::array<std::string_view, 8> kLongFlags = {
    "app_dir",    "checkpoint_dir", "output_dir",  "rank",
    "world_size", "master_addr",    "master_port", "parameters"};
// The short flags, and the '-' that getopt complains of first when it meets "--app_dir".
constexpr std::string_view kShortFlags = "-acorwdtp";

// What getopt, argparse, click, absl, gflags, Boost, CLI11, clap, Go, Perl, Ruby, picocli… say. An
// adjective counts when an option's noun follows, with at most the fillers between.
constexpr std::array<std::string_view, 15> kAdjectives = {
    "unrecognized", "unrecognised", "unknown",     "invalid",   "unexpected",
    "illegal",      "bad",          "unsupported", "unmatched", "undefined",
    "extra",        "undeclared",   "unused",      "no such",   "strange"};
constexpr std::array<std::string_view, 9> kFillers = {
    "command", "command-line", "commandline", "line", "long", "short", "shorthand", "extra", "cli"};
constexpr std::array<std::string_view, 8> kNouns = {"option",    "argument", "flag",      "operand",
                                                    "predicate", "switch",   "parameter", "args"};
// Whole phrases, around or behind the flag's name.
constexpr std::array<std::string_view, 17> kPhrases = {
    "not expected",              // CLI11: The following arguments were not expected: --app_dir
    "wasn't expected",           // clap: Found argument '--app_dir' which wasn't expected
    "provided but not defined",  // Go: flag provided but not defined: -app_dir
    "no main parameter",         // JCommander
    "not recognized",
    "not recognised",
    "not a valid option",
    "not a valid argument",
    "not a recognized",
    "is unknown",
    "invalid literal for",  // Python: int(sys.argv[1])
    "for input string",     // Java: NumberFormatException
    "option is not",
    "no option",
    "does not take",
    "takes no arguments",
    "can't open"};
// As kPhrases, for names quoted without dashes: R's getopt and optparse, cxxopts.
constexpr std::array<std::string_view, 2> kBareNamePhrases = {"is invalid", "does not exist"};

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

struct Mention {
  size_t begin = 0, end = 0;
  bool dashed = false;  // "--app_dir" or "-app_dir", rather than 'app_dir'
  bool first = false;   // one of those that a parser meets first
};

// A name without dashes counts only in quotes or behind "option: ": "rank" is a word as well.
bool is_marked(std::string_view line, size_t at) {
  if (at == 0) return false;
  const std::string_view before = line.substr(0, at);
  const char quote = before.back();
  return quote == '\'' || quote == '"' || quote == '`' || before.ends_with("\xe2\x80\x98") ||
         before.ends_with("\xe2\x80\x9c") || before.ends_with("option: ") ||
         before.ends_with("options: ") || before.ends_with("flag: ");
}

std::vector<Mention> find_mentions(std::string_view line) {
  std::vector<Mention> mentions;
  for (size_t i = 0; i < kLongFlags.size(); ++i) {
    const std::string_view name = kLongFlags[i];
    for (size_t at = line.find(name); at != std::string_view::npos; at = line.find(name, at + 1)) {
      const size_t end = at + name.size();
      if (end < line.size() && is_word(line[end])) continue;
      size_t begin = at;
      while (begin > 0 && at - begin < 2 && line[begin - 1] == '-') --begin;
      const bool dashed = begin < at;
      if (begin > 0 && is_word(line[begin - 1])) continue;  // "my-app_dir", "---rank"
      if (dashed || is_marked(line, at)) mentions.push_back({begin, end, dashed, i < 2});
    }
  }
  return mentions;
}

template <size_t N>
std::string_view starts_with_one_of(std::string_view text,
                                    const std::array<std::string_view, N>& words) {
  std::string_view longest;
  for (std::string_view word : words) {
    if (text.starts_with(word) && word.size() > longest.size()) longest = word;
  }
  return longest;
}

std::string_view without_spaces(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  return text;
}

struct Complaint {
  size_t begin = 0, end = 0;
  bool weak = false;  // "invalid argument" may as well be about a value
};

// The complaint that begins at `at`, if one does: adjective, fillers, noun.
std::optional<Complaint> complaint_at(std::string_view line, size_t at) {
  if (at > 0 && is_word(line[at - 1])) return std::nullopt;
  const std::string_view adjective = starts_with_one_of(line.substr(at), kAdjectives);
  if (adjective.empty()) return std::nullopt;
  std::string_view rest = line.substr(at + adjective.size());
  if (rest.empty() || rest.front() != ' ') return std::nullopt;
  for (int fillers = 0; fillers < 3; ++fillers) {
    rest = without_spaces(rest);
    const std::string_view filler = starts_with_one_of(rest, kFillers);
    if (filler.empty() || rest.size() == filler.size() || rest[filler.size()] != ' ') break;
    rest.remove_prefix(filler.size());
  }
  const std::string_view noun = starts_with_one_of(without_spaces(rest), kNouns);
  if (noun.empty()) return std::nullopt;
  const size_t end = static_cast<size_t>(without_spaces(rest).data() - line.data()) + noun.size();
  return Complaint{at, end, adjective == "invalid" && (noun == "argument" || noun == "parameter")};
}

std::vector<Complaint> find_complaints(std::string_view line) {
  std::vector<Complaint> complaints;
  for (size_t at = 0; at < line.size(); ++at) {
    if (std::optional<Complaint> found = complaint_at(line, at)) complaints.push_back(*found);
  }
  return complaints;
}

// Behind the complaint, with at most a little punctuation or other arguments between; or just
// before it, as in "bash: --app_dir: invalid option".
bool belongs(const Complaint& complaint, const Mention& mention) {
  if (complaint.weak && !mention.first) return false;
  if (mention.begin >= complaint.end) return true;
  return mention.dashed && mention.end <= complaint.begin && complaint.begin - mention.end <= 8;
}

template <size_t N>
bool contains_one_of(std::string_view line, const std::array<std::string_view, N>& phrases) {
  return std::any_of(phrases.begin(), phrases.end(), [line](std::string_view phrase) {
    return line.find(phrase) != std::string_view::npos;
  });
}

// getopt: "invalid option -- 'a'", "illegal option -- -"; dash: "Illegal option --".
bool refuses_short_flag(std::string_view line, const Complaint& complaint) {
  std::string_view rest = line.substr(complaint.end);
  if (!rest.starts_with(" -") && !rest.starts_with(": -")) return false;
  rest.remove_prefix(rest.find('-') + 1);
  if (rest.starts_with("- ")) rest.remove_prefix(2);
  if (!rest.empty() && (rest.front() == '\'' || rest.front() == '`')) rest.remove_prefix(1);
  if (rest.empty() || kShortFlags.find(rest.front()) == std::string_view::npos) return false;
  rest.remove_prefix(1);
  if (!rest.empty() && rest.front() == '\'') rest.remove_prefix(1);
  return without_spaces(rest).empty();
}

bool line_refuses(std::string_view line) {
  const std::vector<Complaint> complaints = find_complaints(line);
  for (const Complaint& complaint : complaints) {
    if (refuses_short_flag(line, complaint)) return true;
  }
  const std::vector<Mention> mentions = find_mentions(line);
  for (const Mention& mention : mentions) {
    for (const Complaint& complaint : complaints) {
      if (belongs(complaint, mention)) return true;
    }
    if (mention.dashed && contains_one_of(line, kPhrases)) return true;
    if (contains_one_of(line, kBareNamePhrases) &&
        (line.find("flag") != std::string_view::npos ||
         line.find("option") != std::string_view::npos)) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<std::string> injected_argument_refused(std::string_view standard_error) {
  // The complaint is what the program says last, or nearly so.
  if (standard_error.size() > kMaxExaminedBytes) {
    standard_error.remove_prefix(standard_error.size() - kMaxExaminedBytes);
  }
  while (!standard_error.empty()) {
    const size_t end = std::min(standard_error.find('\n'), standard_error.size());
    std::string line = lower_case(standard_error.substr(0, std::min(end, kMaxLineBytes)));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line_refuses(line)) return "--inject env";
    standard_error.remove_prefix(std::min(end + 1, standard_error.size()));
  }
  return std::nullopt;
}

}  // namespace pesc
