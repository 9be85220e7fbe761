// One program per language that says what the contract told it, in the same words.
#pragma once

namespace pesc::snippet_tests {

// C99 and C++ alike. "say" takes PESC's arguments away and prints; "work" makes events.
inline constexpr char kC[] = R"program(#include "rank.h"

static void say(int argc, char** argv) {
  int i;
  printf("rank=%d world=%d app=%s check=%s out=%s master=%s:%d", pesc_rank(), pesc_world_size(),
         pesc_app_dir(), pesc_checkpoint_dir(), pesc_output_dir(), pesc_master_addr(),
         pesc_master_port());
  printf(" parameters=");
  for (i = 0; i < pesc_parameter_count(); ++i) printf("[%s]", pesc_parameter(i));
  printf(" own=");
  for (i = 1; i < argc; ++i) printf("[%s]", argv[i]);
  printf("\n");
}

static int work(void) {
  size_t size;
  int i;
  char* loaded = (char*)pesc_load_checkpoint("state", &size);
  if (loaded != NULL) {
    printf("loaded %s\n", loaded);
    free(loaded);
    return 0;
  }
  if (errno != ENOENT) return 1;
  for (i = 0; i < 100000; ++i) {
    if (pesc_progress(0.5 + 1e-9 * i, "half\nway") != 0) return 1;
  }
  if (pesc_metric("a b", 1.5) != 0) return 1;
  if (pesc_metric("x", NAN) != -1) return 1;
  return pesc_save_checkpoint("state", "0123", 4) != 0;
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "work") == 0) return work();
  pesc_take_args(&argc, argv);
  say(argc, argv);
  return argv[argc] != NULL;
}
)program";

inline constexpr char kCpp[] = R"program(#include <iostream>
#include "rank.h"

// Another file of the program, with the same state.
int other_rank();

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "work") {
    const pesc::RankContext pesc;
    std::string state;
    if (pesc.load_checkpoint("state", state)) {
      std::cout << "loaded " << state << "\n";
      return 0;
    }
    const bool good = pesc.progress(0.5, "half\nway") && pesc.metric("a b", 1.5) &&
                      pesc.save_checkpoint("state", "0123");
    return good ? 0 : 1;
  }
  const auto pesc = pesc::RankContext::from(argc, argv);
  if (other_rank() != pesc.rank) return 1;
  std::cout << "rank=" << pesc.rank << " world=" << pesc.world_size << " app=" << pesc.app_dir
            << " check=" << pesc.checkpoint_dir << " out=" << pesc.output_dir
            << " master=" << pesc.master_addr << ":" << pesc.master_port << " parameters=";
  for (const std::string& value : pesc.parameters) std::cout << "[" << value << "]";
  std::cout << " own=";
  for (int i = 1; i < argc; ++i) std::cout << "[" << argv[i] << "]";
  std::cout << "\n";
}
)program";

inline constexpr char kOther[] = R"program(#include "rank.h"
int other_rank(void);
int other_rank(void) { return pesc_rank(); }
)program";

inline constexpr char kPython[] = R"program(import sys
import pesc_rank

if sys.argv[1:2] == ["work"]:
    pesc = pesc_rank.get()
    state = pesc.load_checkpoint("state")
    if state is not None:
        print("loaded", state.decode())
        sys.exit(0)
    for i in range(1000):
        pesc.progress(0.5 + 1e-9 * i, "half\nway")
    pesc.metric("a b", 1.5)
    pesc.save_checkpoint("state", b"0123")
    sys.exit(0)

p = pesc_rank.get(strip_arguments=True)
show = lambda values: "".join("[%s]" % value for value in values)
print("rank=%d world=%d app=%s check=%s out=%s master=%s:%d parameters=%s own=%s" % (
    p.rank, p.world_size, p.app_dir, p.checkpoint_dir, p.output_dir, p.master_addr, p.master_port,
    show(p.parameters), show(sys.argv[1:])))
)program";

inline constexpr char kR[] = R"program(source("pesc_rank.R")
p <- pesc_rank()
if (identical(commandArgs(trailingOnly = TRUE)[1], "work")) {
  state <- p$load_checkpoint("state")
  if (!is.null(state)) {
    cat("loaded ", state, "\n", sep = "")
    quit(status = 0)
  }
  for (i in 0:999) p$progress(0.5 + 1e-9 * i, "half\nway")
  p$metric("a b", 1.5)
  p$save_checkpoint("state", "0123")
  quit(status = 0)
}
show <- function(values) if (length(values) > 0) paste0("[", values, "]", collapse = "") else ""
stopifnot(is.integer(p$seed_int), !is.na(p$seed_int))
cat(sprintf("rank=%d world=%d app=%s check=%s out=%s master=%s:%d parameters=%s own=%s\n", p$rank,
            p$world_size, p$app_dir, p$checkpoint_dir(), p$output_dir(), p$master_addr,
            p$master_port, show(p$parameters), show(p$own_arguments)))
)program";

inline constexpr char kJava[] = R"program(import java.util.Arrays;
import java.util.List;

public class Main {
  static String show(List<String> values) {
    StringBuilder text = new StringBuilder();
    for (String value : values) text.append("[").append(value).append("]");
    return text.toString();
  }

  public static void main(String[] args) throws Exception {
    PescRank p = PescRank.from(args);
    if (args.length > 0 && args[0].equals("work")) {
      byte[] state = p.loadCheckpoint("state");
      if (state != null) {
        System.out.println("loaded " + new String(state));
        return;
      }
      for (int i = 0; i < 1000; ++i) p.progress(0.5 + 1e-9 * i, "half\nway");
      p.metric("a b", 1.5);
      p.saveCheckpoint("state", "0123".getBytes());
      return;
    }
    System.out.println("rank=" + p.rank() + " world=" + p.worldSize() + " app=" + p.appDir()
        + " check=" + p.checkpointDir() + " out=" + p.outputDir() + " master=" + p.masterAddr()
        + ":" + p.masterPort() + " parameters=" + show(p.parameters()) + " own="
        + show(Arrays.asList(p.ownArguments())));
  }
}
)program";

inline constexpr char kShell[] = R"program(set -eu
. ./pesc_rank.sh
if [ "${1-}" = work ]; then
  if state=$(pesc_load_checkpoint state); then
    echo "loaded $state"
    exit 0
  fi
  pesc_progress 0.5 "half
way"
  pesc_metric a_b 1.5
  printf 0123 | pesc_save_checkpoint state
  exit 0
fi
show() { for value in "$@"; do printf '[%s]' "$value"; done; }
printf 'rank=%d world=%d app=%s check=%s out=%s master=%s:%d parameters=' "$PESC_RANK" \
  "$PESC_WORLD_SIZE" "$PESC_APP_DIR" "$PESC_CHECKPOINT_DIR" "$PESC_OUTPUT_DIR" "$PESC_MASTER_ADDR" \
  "$PESC_MASTER_PORT"
if [ -n "$PESC_PARAMETERS" ]; then printf '%s\n' "$PESC_PARAMETERS" | sed 's/.*/[&]/' | tr -d '\n'; fi
printf ' own=%s\n' "$(show "$@")"
)program";

}  // namespace pesc::snippet_tests
