// pesc header, doctor, completion: what needs no coordinator.
#include <fmt/format.h>

#include <memory>

#include "model/header_snippets.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/completion.h"
#include "runtime/cli/doctor.h"

namespace pesc::cli {
namespace {

int header(const std::string& language) {
  std::optional<std::string_view> snippet = header_snippet(language);
  if (!snippet) {
    return fail(absl::InvalidArgumentError("'" + language +
                                           "': there is one for cpp, python, r, java and shell"));
  }
  fwrite(snippet->data(), 1, snippet->size(), stdout);
  return fflush(stdout) == 0 ? kSucceeded : kSomeFailed;
}

int completion(const CLI::App& app, const std::string& shell) {
  std::optional<std::string> script = completion_script(app, shell);
  if (!script) return fail(absl::InvalidArgumentError("'" + shell + "': there is bash and zsh"));
  fmt::print("{}", *script);
  return kSucceeded;
}

}  // namespace

void add_local_commands(CLI::App& app, Common& common, Commands& commands) {
  auto language = std::make_shared<std::string>();
  CLI::App* header_app = app.add_subcommand(
      "header", "Print what a program can include to read its rank and report progress");
  header_app->add_option("language", *language, "cpp, python, r, java or shell")->required();
  commands.push_back({header_app, [language] { return header(*language); }});

  CLI::App* doctor_app =
      app.add_subcommand("doctor", "What this machine offers to PESC, and what it lacks");
  add_common_flags(doctor_app, common, true);
  commands.push_back({doctor_app, [&common] { return doctor(common); }});

  auto shell = std::make_shared<std::string>();
  CLI::App* completion_app = app.add_subcommand(
      "completion", "Print the shell's completion: source <(pesc completion bash)");
  completion_app->add_option("shell", *shell, "bash or zsh")->required();
  commands.push_back({completion_app, [&app, shell] { return completion(app, *shell); }});
}

}  // namespace pesc::cli
