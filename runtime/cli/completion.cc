#include "runtime/cli/completion.h"

#include <fmt/format.h>

namespace pesc::cli {
namespace {

std::string flags_of(const CLI::App& app) {
  std::string flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags += " --" + name;
    for (const std::string& name : option->get_snames()) flags += " -" + name;
  }
  return flags;
}

std::string commands_of(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands({})) names += " " + command->get_name();
  return names;
}

// First word: a command. A flag: the command's. `header`, `completion`, `join-file`, `--inject`:
// their words. A command about one job: the ids there are. Else, and after `--`: files.
std::string bash(const CLI::App& app) {
  std::string cases;
  for (const CLI::App* command : app.get_subcommands({})) {
    cases += fmt::format("    {}) flags='{}' ;;\n", command->get_name(), flags_of(*command));
  }
  return fmt::format(R"sh(_pesc() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" flags='' i
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{} --help --version' -- "$current"))
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    if [ "${{COMP_WORDS[i]}}" = -- ]; then
      COMPREPLY=($(compgen -f -- "$current"))
      return
    fi
  done
  case "$command" in
{}  esac
  case "$before" in
    --inject) COMPREPLY=($(compgen -W 'args env none' -- "$current")); return ;;
  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags --help" -- "$current"))
    return
  fi
  case "$command" in
    header) COMPREPLY=($(compgen -W 'cpp python r java shell' -- "$current")) ;;
    completion) COMPREPLY=($(compgen -W 'bash zsh' -- "$current")) ;;
    join-file) COMPREPLY=($(compgen -W 'worker user' -- "$current")) ;;
    drain|pause|resume)
      COMPREPLY=($(compgen -W "$(pesc workers 2>/dev/null | awk 'NR > 1 && !/^ / {{print $1}}')" \
        -- "$current")) ;;
    watch|logs|fetch|status|why|stats|cancel|retry|rm)
      COMPREPLY=($(compgen -W "last $(pesc jobs 2>/dev/null | awk 'NR > 1 {{print $1}}')" \
        -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}}
complete -o filenames -F _pesc pesc
)sh",
                     commands_of(app), cases);
}

}  // namespace

std::optional<std::string> completion_script(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash(app);
  // zsh reads bash's by its own compatibility layer, which needs zsh's own completion begun.
  if (shell == "zsh") {
    return "(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -u }\n"
           "autoload -U +X bashcompinit && bashcompinit\n" +
           bash(app);
  }
  return std::nullopt;
}

}  // namespace pesc::cli
