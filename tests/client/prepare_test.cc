// From a description to a specification: names; and files that change before they are sent.
#include "client/prepare.h"

#include "client/session.h"
#include "client/transfer.h"
#include "tests/client/support.h"

namespace pesc {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PrepareTest : public Embedded {
 protected:
  PrepareTest() : before_(std::filesystem::current_path()) {
    std::filesystem::create_directories(directory_ / "here/code");
    std::filesystem::current_path(directory_ / "here");
  }
  ~PrepareTest() override { std::filesystem::current_path(before_); }

  std::string name_of(const Job& job) {
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared.ok() ? prepared->spec.name : "";
  }

 private:
  std::filesystem::path before_;
};

TEST_F(PrepareTest, AnInterpretersJobIsCalledAsItsScript) {
  for (const char* name : {"study.py", "data.csv", "code/main.R", "a\nb", "libs.zip"}) {
    std::ofstream(name) << name;
  }
  struct Case {
    std::string program;
    std::vector<std::string> arguments, files;
    std::string name;
  };
  const Case cases[] = {
      {"python3", {"study.py", "data.csv"}, {"study.py", "data.csv"}, "study.py"},
      {"python3.11", {"-u", "./study.py"}, {"study.py"}, "study.py"},
      {"/usr/bin/python3", {"study.py"}, {"study.py"}, "study.py"},
      {"Rscript", {"--vanilla", "code/main.R"}, {"code"}, "main.R"},
      {"java", {"-jar", "study.py"}, {"study.py"}, "study.py"},
      {"python3", {"study.py"}, {}, "python3"},  // it does not travel
      {"python3", {"-c", "import x", "data.csv"}, {"data.csv"}, "python3"},
      {"python3", {"-m", "study", "data.csv"}, {"data.csv"}, "python3"},
      {"sh", {"a\nb"}, {"a\nb"}, "sh"},              // cannot be shown
      {"sort", {"data.csv"}, {"data.csv"}, "sort"},  // no interpreter
  };
  for (const Case& each : cases) {
    Job job = job_of(each.program);
    job.send_program = false;
    job.arguments = each.arguments;
    job.files = each.files;
    EXPECT_EQ(name_of(job), each.name) << each.program << ' ' << each.arguments[0];
    job.name = "mine";
    EXPECT_EQ(name_of(job), "mine");
  }
  Job shared = job_of("perl");
  shared.arguments = {"study.py"};
  shared.shared_files = {"study.py"};
  EXPECT_EQ(name_of(shared), "study.py");
}

// Between hashing and sending, whatever the size, a file may be written to.
class ChangedFile : public PrepareTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(ChangedFile, IsNoticedAndNothingIsStored) {
  Client client = local();
  const std::string bytes(GetParam(), 'a');
  auto rewrite = [](const std::string& text) { std::ofstream("data", std::ios::trunc) << text; };
  const std::function<void()> changes[] = {
      [&] { rewrite(std::string(bytes.size(), 'b')); },  // as long as before
      [&] { rewrite(bytes + "more"); },
      [&] { rewrite(bytes.substr(1)); },
      [&] { std::filesystem::remove("data"); },
  };
  for (const auto& change : changes) {
    rewrite(bytes);
    Job job = job_of("true");
    job.files = {"data"};
    absl::StatusOr<client::PreparedJob> prepared = client::prepare(job);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    change();
    absl::Status status =
        client::upload(*client.session(), {prepared->spec.files[0].blob}, prepared->sources);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("data"));
  }
  EXPECT_THAT(*client.jobs(), IsEmpty());
  // What was not stored then is sent now: nothing of the failed attempts was taken for it.
  rewrite(bytes);
  Job job = job_of(directory_.script("count", "wc -c <data; head -c 1 data"));
  job.files = {"data"};
  absl::StatusOr<JobHandle> handle = client.submit(job);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ(*handle->wait()->output(0), std::to_string(bytes.size()) + "\na");
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChangedFile, ::testing::Values(1'000, 3'000'000));

}  // namespace
}  // namespace pesc
