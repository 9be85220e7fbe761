// Results into a directory: DIR/output.txt, DIR/rank-N/…, DIR/ranks.csv. DIR/.pesc says whose they
// are and which ranks are there, so that a later fetch goes on where this one stopped.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "blob/pack.h"
#include "client/state.h"
#include "client/transfer.h"

namespace pesc {
namespace client {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kRanksPage = 500;

bool is_final(State state) { return state != State::waiting && state != State::running; }

absl::Status io_error(const fs::path& path, const std::string& what) {
  std::string message = path.string() + ": " + what;
  if (what == strerror(ENOSPC) || what == strerror(EDQUOT)) {
    return absl::ResourceExhaustedError(message + "; make room and try again: it goes on");
  }
  return absl::FailedPreconditionError(message);
}

// `name`: below the open directory `from`. `buffer` is used again for each.
absl::Status copy_into(std::ofstream& out, int from, const std::string& name, const fs::path& to,
                       std::vector<char>& buffer) {
  const int fd = ::openat(from, name.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::OkStatus();  // a rank that wrote nothing there
  ssize_t got = 0;
  do {
    got = ::read(fd, buffer.data(), buffer.size());
    if (got > 0) out.write(buffer.data(), got);
  } while (out && (got > 0 || (got < 0 && errno == EINTR)));
  const int error = errno;
  ::close(fd);
  if (got < 0 && error == EISDIR) return absl::OkStatus();  // the rank's own, no text
  return out && got == 0 ? absl::OkStatus() : io_error(to, strerror(error));
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

class Fetch {
 public:
  Fetch(std::shared_ptr<Session> session, JobId id, fs::path directory)
      : session_(std::move(session)), id_(id), directory_(std::move(directory)) {}

  absl::StatusOr<FetchReport> run() {
    read_fetched();
    fetched_out_.open(directory_ / ".pesc" / "fetched", std::ios::app | std::ios::binary);
    csv_.open(directory_ / ".pesc" / "ranks.csv", std::ios::trunc);
    if (cut_) fetched_out_ << '\n';
    if (!fetched_out_ || !csv_) return io_error(directory_, strerror(errno));
    csv_ << "rank,state,attempts,worker,started,seconds,exit_code,signal,reason,max_rss_bytes\n";
    for (uint32_t first = 0;;) {
      absl::StatusOr<std::vector<FinalRank>> page = read_ranks(*session_, id_, first, kRanksPage);
      if (!page.ok()) return page.status();
      if (page->empty()) break;
      absl::Status status = write_page(*page);
      if (!status.ok()) return status;
      first = page->back().result.rank + 1;
      total_ = first;
    }
    absl::Status status = finish();
    if (!status.ok()) return status;
    return report_;
  }

 private:
  fs::path rank_dir(uint32_t rank) const { return directory_ / ("rank-" + std::to_string(rank)); }

  void read_fetched() {
    std::ifstream in(directory_ / ".pesc" / "fetched");
    for (std::string line; std::getline(in, line);) {
      cut_ = in.eof();
      std::istringstream words(line);
      uint32_t rank;
      std::string digest;
      if (words >> rank >> digest) fetched_[rank] = digest;
    }
  }

  absl::Status write_page(const std::vector<FinalRank>& page) {
    std::vector<const FinalRank*> small;
    std::vector<BlobRef> refs;
    for (const FinalRank& rank : page) {
      write_csv(rank.result);
      if (!is_final(rank.result.state)) {
        ++report_.missing;
        continue;
      }
      if (!rank.result.uncollected.empty() && report_.uncollected.empty()) {
        report_.uncollected = rank.result.uncollected;
        report_.uncollected_rank = rank.result.rank;
      }
      if (there_already(rank)) continue;
      ++report_.ranks;
      if (!rank.output.empty() && rank.output.size_bytes <= kBatchBytes / 4) {
        small.push_back(&rank);
        refs.push_back(rank.output);
        continue;
      }
      absl::Status status =
          place(rank, rank.output.empty() ? blob::ByteSource() : download(session_, rank.output));
      if (!status.ok()) return status;
    }
    absl::StatusOr<std::vector<std::string>> bytes = download_small(*session_, refs);
    if (!bytes.ok()) return bytes.status();
    for (size_t i = 0; i < small.size(); ++i) {
      absl::Status status = place(*small[i], blob::source_of(std::move((*bytes)[i])));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  bool there_already(const FinalRank& rank) {
    auto found = fetched_.find(rank.result.rank);
    return found != fetched_.end() && found->second == to_hex(rank.output.digest) &&
           fs::is_directory(rank_dir(rank.result.rank));
  }

  // Unpacked beside its place and then moved there: a rank's directory is whole or not there. What
  // an interrupted fetch has left is looked for only where something is in the way.
  absl::Status place(const FinalRank& rank, const blob::ByteSource& source) {
    const fs::path part = directory_ / ".pesc" / "part", target = rank_dir(rank.result.rank);
    std::error_code error;
    if (::mkdir(part.c_str(), 0777) != 0) {
      fs::remove_all(part, error);
      fs::create_directory(part, error);
      if (error) return io_error(part, error.message());
    }
    if (source) {
      blob::UnpackLimits limits;
      limits.max_ratio = 0;  // what a rank wrote was written once already: zeros are no bomb
      absl::Status status = blob::unpack(source, part, limits);
      if (!status.ok()) return status;
    }
    if (::rename(part.c_str(), target.c_str()) != 0) {  // over an empty directory it succeeds
      fs::remove_all(target, error);
      fs::rename(part, target, error);
    }
    if (error) return io_error(target, error.message());
    fetched_out_ << rank.result.rank << ' ' << to_hex(rank.output.digest) << '\n';
    return absl::OkStatus();
  }

  void write_csv(const RankResult& rank) {
    csv_ << fmt::format("{},{},{},{},{},{:.3f},{},{},{},{}\n", rank.rank, to_string(rank.state),
                        rank.attempts, csv_field(rank.worker), rank.started_unix_ms / 1000.0,
                        rank.seconds, rank.exit_code, rank.signal, rank.reason, rank.max_rss_bytes);
  }

  absl::Status finish() {
    fs::path merged = directory_ / ".pesc" / "output.txt";
    std::ofstream out(merged, std::ios::binary | std::ios::trunc);
    const int from = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0) return io_error(directory_, strerror(errno));
    absl::Status copied;
    std::vector<char> buffer(256 * 1024);
    for (uint32_t rank = 0; rank < total_ && copied.ok(); ++rank) {
      copied = copy_into(out, from, "rank-" + std::to_string(rank) + "/output.txt", merged, buffer);
    }
    ::close(from);
    if (!copied.ok()) return copied;
    out.close();
    csv_.close();
    fetched_out_.close();
    if (!out || !csv_ || !fetched_out_) return io_error(directory_, strerror(errno));
    std::error_code error;
    for (const char* name : {"output.txt", "ranks.csv"}) {
      fs::rename(directory_ / ".pesc" / name, directory_ / name, error);
      if (error) return io_error(directory_ / name, error.message());
    }
    return absl::OkStatus();
  }

  std::shared_ptr<Session> session_;
  JobId id_;
  fs::path directory_;
  std::map<uint32_t, std::string> fetched_;
  bool cut_ = false;  // the last line of it has no end: a fetch was killed as it wrote it
  std::ofstream fetched_out_, csv_;
  uint32_t total_ = 0;
  FetchReport report_;
};

// What `directory` holds already: the id of a job, empty when nothing, or why it cannot be used.
absl::StatusOr<std::string> holder(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) return std::string();
  if (!fs::is_directory(directory, error)) {
    return absl::FailedPreconditionError("'" + directory.string() +
                                         "' is not a directory: name another one");
  }
  std::ifstream marker(directory / ".pesc" / "job");
  std::string id;
  if (marker >> id) return id;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() == ".pesc") continue;
    return absl::FailedPreconditionError(
        "the output directory '" + directory.string() +
        "' is not empty; name another one or empty it, nothing was changed");
  }
  if (error) {
    return absl::FailedPreconditionError("the output directory '" + directory.string() +
                                         "' cannot be read: " + error.message());
  }
  return std::string();
}

}  // namespace

absl::Status claim_directory(const std::string& directory, const std::string& id,
                             const SaveOptions& options) {
  fs::path path(directory);
  if (directory.empty()) return absl::InvalidArgumentError("no output directory is named");
  absl::StatusOr<std::string> held = holder(path);
  if (!held.ok() && !(options.overwrite && fs::is_directory(path))) return held.status();
  if (held.ok() && !held->empty() && *held != id && !options.overwrite) {
    return absl::FailedPreconditionError("'" + directory + "' holds the results of job " + *held +
                                         "; name another directory");
  }
  if (held.ok() && *held != id && options.overwrite) {
    std::error_code error;
    fs::remove(path / ".pesc" / "fetched", error);
  }
  std::error_code error;
  fs::create_directories(path / ".pesc", error);
  if (error || access(path.c_str(), W_OK) != 0) {
    return absl::FailedPreconditionError(
        "the output directory '" + directory +
        "' cannot be written: " + (error ? error.message() : strerror(errno)));
  }
  if (id.empty()) return absl::OkStatus();
  std::ofstream marker(path / ".pesc" / "job", std::ios::trunc);
  marker << id << '\n';
  marker.close();
  return marker ? absl::OkStatus() : io_error(path / ".pesc" / "job", strerror(errno));
}

absl::StatusOr<std::vector<FinalRank>> read_ranks(Session& session, JobId id, uint32_t first,
                                                  uint32_t max) {
  auto page = session.call<std::vector<FinalRank>>([=](UserSession& user) {
    auto request = user.ranksRequest();
    request.setId(id.value);
    request.setFirst(first);
    request.setMax(max);
    return request.send().then([](capnp::Response<protocol::UserSession::RanksResults> response) {
      std::vector<FinalRank> ranks;
      for (auto rank : response.getRanks()) ranks.push_back(to_public(rank));
      return ranks;
    });
  });
  if (page.ok() && session.embedded()) {
    for (FinalRank& rank : *page) say_this_machine(rank.result);
  }
  return page;
}

absl::StatusOr<std::vector<RankResult>> read_all_ranks(Session& session, JobId id) {
  std::vector<RankResult> out;
  for (;;) {
    uint32_t first = out.empty() ? 0 : out.back().rank + 1;
    auto page = read_ranks(session, id, first, 1'000);
    if (!page.ok()) return page.status();
    if (page->empty()) return out;
    for (FinalRank& rank : *page) out.push_back(std::move(rank.result));
  }
}

absl::StatusOr<FinalRank> read_rank(Session& session, JobId id, uint32_t rank) {
  absl::StatusOr<std::vector<FinalRank>> ranks = read_ranks(session, id, rank, 1);
  if (!ranks.ok()) return ranks.status();
  if (ranks->empty() || ranks->front().result.rank != rank) {
    return absl::OutOfRangeError("job " + to_string(id) + " has no rank " + std::to_string(rank));
  }
  return std::move(ranks->front());
}

absl::StatusOr<FetchReport> fetch(const std::shared_ptr<Session>& session, JobId id,
                                  const std::string& directory, const SaveOptions& options) {
  absl::Status status = claim_directory(directory, to_string(id), options);
  if (!status.ok()) return status;
  return Fetch(session, id, directory).run();
}

}  // namespace client

const JobStatus& JobResult::status() const { return state_->status; }
bool JobResult::succeeded() const { return state_->status.state == pesc::State::succeeded; }

absl::StatusOr<std::vector<RankResult>> JobResult::ranks() const {
  return client::read_all_ranks(*state_->session, state_->id);
}

absl::Status JobResult::save(const std::string& directory, const SaveOptions& options) const {
  return client::fetch(state_->session, state_->id, directory, options).status();
}

}  // namespace pesc
