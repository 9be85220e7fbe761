// What a rank wrote, running or finished: as a stream, and as strings of bounded length.
#include "client/output.h"

#include <algorithm>
#include <utility>

#include "blob/pack.h"
#include "client/state.h"
#include "client/transfer.h"

namespace pesc {
namespace {

using client::FinalRank;
using client::LiveOutput;
using client::Session;
using client::Stream;
using client::stream_of;
using client::UserSession;

constexpr uint32_t kLiveBytes = 1 << 20;
constexpr uint64_t kMaxBuildLogBytes = 4 << 20;
constexpr size_t kLogsTried = 16;

// Of a finished rank, from `offset` on. NotFound: it left none.
absl::Status stream_final(const std::shared_ptr<Session>& session, const FinalRank& rank,
                          bool standard_error, uint64_t offset, const OutputSink& sink) {
  if (rank.output.empty()) {
    return absl::NotFoundError("rank " + std::to_string(rank.result.rank) + " left no output");
  }
  return client::stream_packed(client::download(session, rank.output), standard_error, offset,
                               sink);
}

absl::StatusOr<LiveOutput> read_live(Session& session, JobId id, uint32_t rank, uint32_t attempt,
                                     uint64_t offset, Stream stream) {
  const client::LiveRead read{rank, attempt, offset, kLiveBytes};
  return session.call<LiveOutput>(
      [=](UserSession& user) { return client::read_live(user, id, read, stream); });
}

}  // namespace

namespace client {

kj::Promise<LiveOutput> read_live(UserSession& user, JobId id, const LiveRead& read,
                                  Stream stream) {
  auto request = user.readLogRequest();
  request.setId(id.value);
  request.setRank(read.rank);
  request.setStream(static_cast<uint8_t>(stream));
  request.setAttempt(read.attempt);
  request.setOffset(read.offset);
  request.setMaxBytes(read.max_bytes);
  return request.send().then([](capnp::Response<protocol::UserSession::ReadLogResults> response) {
    auto data = response.getData();
    return LiveOutput{std::string(reinterpret_cast<const char*>(data.begin()), data.size()),
                      response.getAttempt()};
  });
}

absl::Status stream_packed(const blob::ByteSource& source, bool standard_error, uint64_t offset,
                           const OutputSink& sink) {
  uint64_t skip = offset;
  return blob::stream_member(source, standard_error ? "stderr.txt" : "output.txt",
                             [&](std::string_view bytes) {
                               size_t cut = std::min<uint64_t>(skip, bytes.size());
                               skip -= cut;
                               bytes.remove_prefix(cut);
                               return bytes.empty() ? absl::OkStatus() : sink(bytes);
                             });
}

absl::Status OutputReader::read(const OutputSink& sink, const Restarted& restarted) {
  for (;;) {
    absl::StatusOr<FinalRank> info = read_rank(*session_, id_, rank_);
    if (!info.ok()) return info.status();
    const bool runs = info->result.state == pesc::State::running;
    // One that never had more than one attempt need not be asked for which it was.
    LiveOutput live{"", info->result.attempts};
    if (runs || info->result.attempts > 1) {
      auto read =
          pesc::read_live(*session_, id_, rank_, attempt_, offset_, stream_of(standard_error_));
      // A worker that was just given the attempt, or has just handed it in, does not have it.
      if (!read.ok() && !absl::IsNotFound(read.status())) return read.status();
      if (read.ok()) {
        live = *std::move(read);
      } else if (attempt_ != 0) {
        live.attempt = attempt_;
      }
    }
    if (live.attempt != attempt_) {
      const uint32_t before = std::exchange(attempt_, live.attempt);
      if (before != 0) {
        offset_ = 0;
        absl::Status status = restarted(before, attempt_);
        if (!status.ok()) return status;
        continue;
      }
    }
    auto count = [&](std::string_view bytes) {
      offset_ += bytes.size();
      return sink(bytes);
    };
    if (!runs) {
      absl::Status status = stream_final(session_, *info, standard_error_, offset_, count);
      return absl::IsNotFound(status) ? absl::OkStatus() : status;
    }
    if (live.bytes.empty()) return absl::OkStatus();
    absl::Status status = count(live.bytes);
    if (!status.ok()) return status;
  }
}

namespace {

absl::StatusOr<std::string> read_build_log_of(const std::shared_ptr<Session>& session, JobId id,
                                              const FinalRank& rank) {
  if (rank.result.state != pesc::State::running) {
    if (rank.output.empty()) return absl::NotFoundError("it left nothing");
    return blob::read_member(download(session, rank.output), "build.log", kMaxBuildLogBytes);
  }
  std::string log;
  while (log.size() < kMaxBuildLogBytes) {
    auto live = pesc::read_live(*session, id, rank.result.rank, 0, log.size(), Stream::build);
    if (!live.ok()) return live.status();
    if (live->bytes.empty()) break;
    log += live->bytes;
  }
  if (log.empty()) return absl::NotFoundError("nothing is written yet");
  return log;
}

}  // namespace

absl::StatusOr<std::string> read_build_log(const std::shared_ptr<Session>& session, JobId id,
                                           std::optional<uint32_t> rank) {
  absl::StatusOr<std::vector<FinalRank>> ranks = std::vector<FinalRank>();
  if (rank) {
    absl::StatusOr<FinalRank> one = read_rank(*session, id, *rank);
    if (!one.ok()) return one.status();
    ranks->push_back(*std::move(one));
  } else {
    ranks = read_ranks(*session, id, 0, 1'000);
    if (!ranks.ok()) return ranks.status();
  }
  // The one that ended the job comes first.
  const auto place = [](const FinalRank& r) {
    if (r.result.reason == "build_failed") return r.result.state == pesc::State::failed ? 0 : 1;
    return r.result.state == pesc::State::running ? 2 : 3;
  };
  std::stable_sort(ranks->begin(), ranks->end(),
                   [&](const FinalRank& a, const FinalRank& b) { return place(a) < place(b); });
  if (ranks->size() > kLogsTried) ranks->resize(kLogsTried);
  for (const FinalRank& one : *ranks) {
    absl::StatusOr<std::string> log = read_build_log_of(session, id, one);
    if (log.ok() || !absl::IsNotFound(log.status())) return log;
  }
  return absl::NotFoundError(
      "no log of a build has come back: one that failed, one that runs, and that of rank 0 of a "
      "job "
      "with --build can be had");
}

}  // namespace client

absl::Status JobHandle::stream_output(uint32_t rank, const OutputSink& sink, uint64_t offset,
                                      bool standard_error) const {
  client::OutputReader reader(state_->session, state_->id, rank, standard_error, offset);
  return reader.read(sink, [rank](uint32_t, uint32_t attempt) {
    return absl::AbortedError("attempt " + std::to_string(attempt) + " of rank " +
                              std::to_string(rank) +
                              " goes on instead of the one before: its output begins at offset 0");
  });
}

absl::StatusOr<std::string> JobHandle::read_output(uint32_t rank, uint64_t offset,
                                                   bool standard_error) const {
  absl::StatusOr<FinalRank> info = client::read_rank(*state_->session, state_->id, rank);
  if (!info.ok()) return info.status();
  if (info->result.state == pesc::State::running) {
    auto live = read_live(*state_->session, state_->id, rank, 0, offset, stream_of(standard_error));
    if (!live.ok()) return live.status();
    return std::move(live->bytes);
  }
  std::string out;
  bool enough = false;
  absl::Status status = stream_final(
      state_->session, *info, standard_error, offset, [&](std::string_view bytes) -> absl::Status {
        out += bytes.substr(0, kMaxOutputBytes - out.size());
        enough = out.size() >= kMaxOutputBytes;
        return enough ? absl::CancelledError("enough for one string") : absl::OkStatus();
      });
  if (!status.ok() && !enough && !absl::IsNotFound(status)) return status;
  return out;
}

absl::Status JobResult::stream_output(uint32_t rank, const OutputSink& sink,
                                      bool standard_error) const {
  absl::StatusOr<FinalRank> info = client::read_rank(*state_->session, state_->id, rank);
  if (!info.ok()) return info.status();
  return stream_final(state_->session, *info, standard_error, 0, sink);
}

absl::StatusOr<std::string> JobResult::output(uint32_t rank) const {
  std::string out;
  absl::Status status = stream_output(rank, [&](std::string_view bytes) -> absl::Status {
    if (out.size() + bytes.size() > kMaxOutputBytes) {
      return absl::ResourceExhaustedError(
          "the output of rank " + std::to_string(rank) +
          " is too long for a string (64 MiB): use JobResult::stream_output or save");
    }
    out += bytes;
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return out;
}

}  // namespace pesc
