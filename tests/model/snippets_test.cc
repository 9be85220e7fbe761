// The contract's wrappers, each compiled or interpreted as its users would, and asked the same
// questions. A language whose tools this machine lacks is passed over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/contract.h"
#include "model/header_snippets.h"
#include "snippet_programs.h"

namespace pesc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Language {
  const char* name;                // of header_snippet
  std::vector<const char*> tools;  // all needed
  std::vector<std::pair<const char*, const char*>> sources;
  const char* build;  // empty: nothing to build
  const char* run;
};

struct Ran {
  std::string output;
  int status = -1;
};

std::string shell_quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string host_variable(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

class Snippet : public ::testing::TestWithParam<Language> {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "pesc-snippet-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = std::filesystem::canonical(pattern);
    for (const char* tool : GetParam().tools) {
      if (sh(std::string("command -v ") + tool).status != 0) return;
    }
    std::ofstream(directory_ / *header_snippet_file(GetParam().name))
        << *header_snippet(GetParam().name);
    for (const auto& [file, text] : GetParam().sources) std::ofstream(directory_ / file) << text;
    const Ran built = sh(GetParam().build);
    ASSERT_EQ(built.status, 0) << built.output;
    EXPECT_EQ(built.output, "") << "warnings";
    available_ = true;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Ran sh(const std::string& command) {
    Ran run;
    FILE* pipe =
        popen(("cd " + shell_quoted(directory_) + " && { " + command + "\n} 2>&1").c_str(), "r");
    if (pipe == nullptr) return run;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
      run.output.append(buffer, got);
    }
    run.status = pclose(pipe);
    return run;
  }

  Ran program(const std::vector<std::string>& arguments,
              const std::vector<std::string>& environment = {}) {
    // Some tools (Java's, a Python of the user's own) need the variables of the host.
    std::string command = "exec env -i";
    for (const char* name : {"PATH", "HOME", "JAVA_HOME", "LD_LIBRARY_PATH"}) {
      if (!host_variable(name).empty()) {
        command += " " + std::string(name) + "=" + shell_quoted(host_variable(name));
      }
    }
    for (const std::string& entry : environment) command += " " + shell_quoted(entry);
    command += std::string(" ") + GetParam().run;
    for (const std::string& argument : arguments) command += " " + shell_quoted(argument);
    return sh(command);
  }

  // What the worker would start, without the program's own name and the base of the environment.
  Command command_of(std::vector<std::string> arguments, Inject inject) {
    JobSpec spec;
    spec.program = "x";
    spec.arguments = std::move(arguments);
    spec.parameters = {"-0.5", "a b"};
    spec.repetitions = 20;
    spec.inject = inject;
    AttemptPlace place;
    place.app_dir = directory_ / "app";
    place.checkpoint_dir = directory_ / "saved";
    place.output_dir = directory_ / "result";
    place.events_file = directory_ / "events";
    place.master_addr = "10.0.0.7";
    place.master_port = 9123;
    std::filesystem::create_directories(place.checkpoint_dir);
    std::filesystem::create_directories(place.output_dir);
    Command command = make_command(spec, {JobId{1}, 7, 2}, place, {});
    command.argv.erase(command.argv.begin());
    std::erase_if(command.environment,
                  [](const std::string& entry) { return !entry.starts_with("PESC_"); });
    return command;
  }

  std::string said_under_pesc(const std::string& own) {
    const std::string at = directory_;
    return "rank=7 world=20 app=" + at + "/app check=" + at + "/saved out=" + at +
           "/result master=10.0.0.7:9123 parameters=[-0.5][a b] own=" + own + "\n";
  }

  std::filesystem::path directory_;
  bool available_ = false;
};

TEST_P(Snippet, RunsAlone) {
  if (!available_) return;
  const Ran run = program({"own", "-v"});
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.output,
            "rank=0 world=1 app=. check=./checkpoint out=./output master=127.0.0.1:9000 "
            "parameters= own=[own][-v]\n");
  EXPECT_TRUE(std::filesystem::is_directory(directory_ / "checkpoint"));
  EXPECT_TRUE(std::filesystem::is_directory(directory_ / "output"));
}

TEST_P(Snippet, ReadsArgumentsWrittenByHand) {
  if (!available_) return;
  const Ran run = program({"own", "--rank", "3", "--output_dir", "deep/er", "--world_size", "5",
                           "--rankle", "--parameters", "-1", "x y"},
                          {"PESC_RANK=4", "PESC_MASTER_PORT=9001"});
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.output,
            "rank=3 world=5 app=. check=./checkpoint out=deep/er master=127.0.0.1:9001 "
            "parameters=[-1][x y] own=[own][--rankle]\n");
  EXPECT_TRUE(std::filesystem::is_directory(directory_ / "deep/er"));
}

TEST_P(Snippet, LeavesWhatFollowsADoubleDash) {
  if (!available_) return;
  EXPECT_THAT(program({"--rank", "3", "--", "--rank", "4"}).output, HasSubstr("rank=3 world=1"));
  EXPECT_THAT(program({"--", "--rank", "4"}).output, HasSubstr(" own=[--][--rank][4]\n"));
  EXPECT_THAT(program({"own", "--rank"}).output, HasSubstr(" own=[own][--rank]\n"));
}

TEST_P(Snippet, UnderstandsWhatTheWorkerStarts) {
  if (!available_) return;
  // The program's own --rank is not PESC's.
  const std::vector<std::string> own = {"go", "--rank", "99", "-r", "--parameters", "p"};
  const Command command = command_of(own, Inject::args);
  const Ran run = program(command.argv, command.environment);
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.output, said_under_pesc("[go][--rank][99][-r][--parameters][p]"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "output"));
}

TEST_P(Snippet, UnderstandsTheEnvironmentAlone) {
  if (!available_) return;
  const Command command = command_of({"go", "--rank", "99"}, Inject::env);
  const Ran run = program(command.argv, command.environment);
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.output, said_under_pesc("[go][--rank][99]"));
}

TEST_P(Snippet, ReportsEventsAndKeepsCheckpoints) {
  if (!available_) return;
  const Command command = command_of({"work"}, Inject::env);
  const Ran first = program(command.argv, command.environment);
  EXPECT_EQ(first.status, 0) << first.output;
  std::vector<RankEvent> events;
  std::ifstream file(directory_ / "events");
  for (std::string line; std::getline(file, line);) {
    const std::optional<RankEvent> event = parse_event_line(line);
    ASSERT_TRUE(event.has_value()) << line;
    events.push_back(*event);
  }
  EXPECT_THAT(events, ElementsAre(RankEvent{RankEvent::Kind::progress, 0.5, "half way"},
                                  RankEvent{RankEvent::Kind::metric, 1.5, "a_b"},
                                  RankEvent{RankEvent::Kind::checkpoint, 0, ""}));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "saved/state"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "saved/state.tmp"));
  EXPECT_EQ(program(command.argv, command.environment).output, "loaded 0123\n");
  // Alone there is nobody to tell, which is no error.
  EXPECT_EQ(program({"work"}).status, 0);
  EXPECT_EQ(program({"work"}).output, "loaded 0123\n");
}

#define PESC_WARNINGS " -Wall -Wextra -Werror -pedantic -I. "

INSTANTIATE_TEST_SUITE_P(
    C, Snippet,
    ::testing::Values(Language{"cpp",
                               {"cc"},
                               {{"p.c", snippet_tests::kC}},
                               "cc -std=c99 -Wdeclaration-after-statement" PESC_WARNINGS
                               "p.c -o p -lm",
                               "./p"},
                      Language{"cpp",
                               {"c++"},
                               {{"p.cc", snippet_tests::kC}},
                               "c++ -std=c++14" PESC_WARNINGS "p.cc -o p",
                               "./p"},
                      Language{"cpp",
                               {"c++"},
                               {{"p.cc", snippet_tests::kCpp}, {"o.cc", snippet_tests::kOther}},
                               "c++ -std=c++14" PESC_WARNINGS "p.cc o.cc -o p",
                               "./p"},
                      Language{"c++",
                               {"c++"},
                               {{"p.cc", snippet_tests::kCpp}, {"o.cc", snippet_tests::kOther}},
                               "c++ -std=c++20" PESC_WARNINGS "p.cc o.cc -o p",
                               "./p"}));

INSTANTIATE_TEST_SUITE_P(
    Interpreted, Snippet,
    ::testing::Values(
        Language{"python", {"python3"}, {{"p.py", snippet_tests::kPython}}, ":", "python3 p.py"},
        Language{"R", {"Rscript"}, {{"p.R", snippet_tests::kR}}, ":", "Rscript --vanilla p.R"},
        Language{"java",
                 {"java", "javac"},
                 {{"Main.java", snippet_tests::kJava}},
                 "javac -Xlint:all Main.java PescRank.java",
                 "java -Xshare:auto -cp . Main"},
        Language{"shell", {"sh"}, {{"p.sh", snippet_tests::kShell}}, ":", "sh p.sh"},
        Language{"bash", {"bash"}, {{"p.sh", snippet_tests::kShell}}, ":", "bash p.sh"}));

TEST(RankHeader, WorksBehindOtherHeadersInStrictC) {
  std::string pattern = std::filesystem::temp_directory_path() / "pesc-rank-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path directory = pattern;
  std::ofstream(directory / "rank.h") << *header_snippet("c");
  // The system's headers were read without POSIX; C and C++ files share one state.
  std::ofstream(directory / "a.c")
      << "#include <stdio.h>\n#include <stdlib.h>\n#include <fcntl.h>\n"
      << snippet_tests::kOther;
  std::ofstream(directory / "b.cc") << "#include \"rank.h\"\nextern \"C\" int other_rank(void);\n"
                                       "int main() { char name[] = \"x\", flag[] = \"-r\", "
                                       "value[] = \"5\";\n"
                                       "char* argv[] = {name, flag, value, nullptr};\n"
                                       "pesc_parse_args(3, argv);\n"
                                       "return other_rank() == 5 && pesc_rank() == 5 ? 0 : 1; }\n";
  const std::string command =
      "if command -v cc && command -v c++; then cd " + shell_quoted(directory) +
      " && cc -std=c99" PESC_WARNINGS "-c a.c && c++ -std=c++14" PESC_WARNINGS
      "b.cc a.o -o x && env -u PESC_JOB ./x; fi > /dev/null";
  EXPECT_EQ(system(command.c_str()), 0);
  std::filesystem::remove_all(directory);
}

TEST(HeaderSnippet, KnowsItsLanguages) {
  for (const char* language : {"cpp", "python", "r", "R", "java", "shell", "c", "Bash"}) {
    ASSERT_TRUE(header_snippet(language).has_value()) << language;
    EXPECT_TRUE(header_snippet(language)->ends_with("\n")) << language;
    EXPECT_NE(header_snippet(language)->find("PESC_EVENTS"), std::string_view::npos) << language;
  }
  EXPECT_EQ(header_snippet("cobol"), std::nullopt);
  EXPECT_EQ(header_snippet(""), std::nullopt);
  EXPECT_EQ(header_snippet_file("java"), "PescRank.java");
}

}  // namespace
}  // namespace pesc
