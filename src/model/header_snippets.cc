#include "model/header_snippets.h"

#include <array>
#include <string>

#include "model/header_snippets_data.h"

namespace pesc {
namespace {

struct Snippet {
  std::array<std::string_view, 3> languages;
  std::string_view file;
  std::string_view text;
};

const Snippet* find_snippet(std::string_view language) {
  static constexpr std::array<Snippet, 5> kSnippets = {{
      {{"cpp", "c", "c++"}, "rank.h", kSnippetCpp},
      {{"python", "py", "python3"}, "pesc_rank.py", kSnippetPython},
      {{"r", "rscript", "r"}, "pesc_rank.R", kSnippetR},
      {{"java", "java", "java"}, "PescRank.java", kSnippetJava},
      {{"shell", "sh", "bash"}, "pesc_rank.sh", kSnippetShell},
  }};
  std::string wanted(language);
  for (char& c : wanted) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const Snippet& snippet : kSnippets) {
    for (std::string_view name : snippet.languages) {
      if (name == wanted) return &snippet;
    }
  }
  return nullptr;
}

}  // namespace

std::optional<std::string_view> header_snippet(std::string_view language) {
  const Snippet* snippet = find_snippet(language);
  if (snippet == nullptr) return std::nullopt;
  return snippet->text;
}

std::optional<std::string_view> header_snippet_file(std::string_view language) {
  const Snippet* snippet = find_snippet(language);
  if (snippet == nullptr) return std::nullopt;
  return snippet->file;
}

}  // namespace pesc
