// pesc: the command line.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "runtime/cli/cli.h"
#include "runtime/cli/suggest.h"
#include "runtime/common/memory.h"

namespace pesc::cli {

namespace {

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

int bad_usage(const std::string& message, const std::string& command) {
  say(message);
  say("see `pesc" + (command.empty() ? "" : " " + command) + " --help`");
  return kBadUsage;
}

int unexpected(const CLI::App& app) {
  const CLI::App* used = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
  std::string command = used == &app ? "" : used->get_name();
  std::vector<std::string> words = used->remaining(true);
  for (const std::string& word : words) {
    if (word.size() < 2 || word[0] != '-') continue;
    std::string flag = word.substr(0, word.find('='));
    std::string message =
        fmt::format("'{}' is not a flag of `pesc{}`{}", flag, command.empty() ? "" : " " + command,
                    suggestion(flag, flags_of(*used)));
    if (command == "run" || command == "submit") {
      message += "; flags of the program itself go after `--`";
    }
    return bad_usage(message, command);
  }
  return bad_usage("'" + (words.empty() ? "" : words.front()) + "' was not expected there",
                   command);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app{
      "pesc: run a sequential program N times on the computers there are, and bring every "
      "output back",
      "pesc"};
  app.set_version_flag("--version", "pesc " PESC_VERSION);
  app.require_subcommand(1);
  Common common;
  Commands commands;
  add_run_commands(app, common, commands);
  add_follow_commands(app, common, commands);
  add_job_commands(app, common, commands);
  add_lab_commands(app, common, commands);
  add_local_commands(app, common, commands);
  if (argc < 2) {
    fmt::print(stderr, "{}", app.help());
    return kBadUsage;
  }
  std::vector<std::string> names = names_of_commands(app);
  std::string first = argv[1];
  if (first[0] != '-' && std::find(names.begin(), names.end(), first) == names.end()) {
    return bad_usage("'" + first + "' is not a command" + suggestion(first, names), "");
  }
  // What follows `--` is the program's, whatever it looks like.
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--") continue;
    common.after_dashes.emplace(argv + i + 1, argv + argc);
    argc = i;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    return unexpected(app);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error) == 0 ? kSucceeded : kBadUsage;
    return bad_usage(error.what(),
                     app.get_subcommands().empty() ? "" : app.get_subcommands()[0]->get_name());
  }
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    std::string name = command.app->get_name();
    if (common.after_dashes && name != "run" && name != "submit") {
      return bad_usage("`pesc " + name + "` runs no program: `--` was not expected", name);
    }
    return command.run();
  }
  return kBadUsage;
}

}  // namespace pesc::cli

int main(int argc, char** argv) {
  pesc::common::keep_freed_pieces();
  // A reader that went away (`pesc logs J | head`) is an error of the write, not a death by signal.
  signal(SIGPIPE, SIG_IGN);
  return pesc::cli::run_command_line(argc, argv);
}
