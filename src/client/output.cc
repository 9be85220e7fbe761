// What a rank wrote, running or finished: as a stream, and as strings of bounded length.
#include "blob/pack.h"
#include "client/state.h"
#include "client/transfer.h"

namespace pesc {
namespace {

using client::FinalRank;
using client::Session;
using client::UserSession;

constexpr uint32_t kLiveBytes = 1 << 20;

// The next bytes of a rank that runs; empty when there are none yet, or when it runs no more.
absl::StatusOr<std::string> read_live(Session& session, JobId id, uint32_t rank, uint64_t offset,
                                      bool standard_error) {
  return session.call<std::string>([=](UserSession& user) {
    auto request = user.readLogRequest();
    request.setId(id.value);
    request.setRank(rank);
    request.setStream(standard_error ? 2 : 1);
    request.setOffset(offset);
    request.setMaxBytes(kLiveBytes);
    return request.send().then([](capnp::Response<protocol::UserSession::ReadLogResults> response) {
      auto data = response.getData();
      return std::string(reinterpret_cast<const char*>(data.begin()), data.size());
    });
  });
}

// Of a finished rank, from `offset` on. NotFound: it left none.
absl::Status stream_final(const std::shared_ptr<Session>& session, const FinalRank& rank,
                          bool standard_error, uint64_t offset, const OutputSink& sink) {
  if (rank.output.empty()) {
    return absl::NotFoundError("rank " + std::to_string(rank.result.rank) + " left no output");
  }
  uint64_t skip = offset;
  return blob::stream_member(client::download(session, rank.output),
                             standard_error ? "stderr.txt" : "output.txt",
                             [&](std::string_view bytes) {
                               size_t cut = std::min<uint64_t>(skip, bytes.size());
                               skip -= cut;
                               bytes.remove_prefix(cut);
                               return bytes.empty() ? absl::OkStatus() : sink(bytes);
                             });
}

}  // namespace

absl::Status JobHandle::stream_output(uint32_t rank, const OutputSink& sink, uint64_t offset,
                                      bool standard_error) const {
  for (;;) {
    absl::StatusOr<FinalRank> info = client::read_rank(*state_->session, state_->id, rank);
    if (!info.ok()) return info.status();
    if (info->result.state != pesc::State::running) {
      absl::Status status = stream_final(state_->session, *info, standard_error, offset, sink);
      return absl::IsNotFound(status) ? absl::OkStatus() : status;
    }
    absl::StatusOr<std::string> live =
        read_live(*state_->session, state_->id, rank, offset, standard_error);
    if (!live.ok()) return live.status();
    if (live->empty()) return absl::OkStatus();
    offset += live->size();
    absl::Status status = sink(*live);
    if (!status.ok()) return status;
  }
}

absl::StatusOr<std::string> JobHandle::read_output(uint32_t rank, uint64_t offset,
                                                   bool standard_error) const {
  absl::StatusOr<FinalRank> info = client::read_rank(*state_->session, state_->id, rank);
  if (!info.ok()) return info.status();
  if (info->result.state == pesc::State::running) {
    return read_live(*state_->session, state_->id, rank, offset, standard_error);
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
