// A whole job's output while it runs.
#include <algorithm>
#include <chrono>
#include <utility>

#include "client/follow.h"
#include "client/output.h"
#include "client/state.h"
#include "client/transfer.h"

namespace pesc::client {
namespace {

constexpr int64_t kLookEveryMs = 200;
constexpr int64_t kLookAgainMs = 50;         // at ranks that had more than was read
constexpr uint32_t kLookRanks = 100;         // at once; of more than that, by turns
constexpr uint32_t kLookBytes = 4 << 20;     // at once, as far as one line of each goes into that
constexpr int64_t kSilentMs = 2'000;         // a worker that does not answer for so long
constexpr int64_t kSparedMs = 10'000;        // is not asked again for so long
constexpr uint32_t kMostBytes = 1 << 20;     // of one rank
constexpr uint64_t kBatchedBytes = 4 << 20;  // of small outputs that are in memory together
constexpr uint32_t kFinishedPage = 1'000;

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

bool is_small(const BlobRef& output) { return output.size_bytes <= kBatchBytes / 4; }

const absl::Status& status_of(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& status_of(const absl::StatusOr<T>& result) {
  return result.status();
}

// Calls that may be repeated, as long as it takes.
template <typename Call>
auto insist(const Call& call) {
  auto result = call();
  while (absl::IsUnavailable(status_of(result))) result = call();
  return result;
}

}  // namespace

struct JobOutput::Piece {
  uint32_t rank = 0;
  LiveOutput live;
  bool silent = false;
};

absl::Status JobOutput::follow() {
  for (;;) {
    absl::StatusOr<Followed> news = ask();
    if (!news.ok()) return news.status();
    if (absl::Status given = finish(news->finished); !given.ok()) return given;
    if (news->finished.empty() && news->status.finished()) return absl::OkStatus();
    runs_ = news->status.running > 0;
    more_ = news->finished.size() >= kFinishedPage;
    if (!runs_ || now_ms() < look_at_ms_) continue;
    if (absl::Status looked = look(); !looked.ok()) return looked;
    look_at_ms_ = again_.empty() ? look_at_all_ms_ : now_ms() + kLookAgainMs;
  }
}

// Waits for ranks that end, until it is time to look at those that run; when none does, for
// anything.
absl::StatusOr<Followed> JobOutput::ask() {
  const int64_t until_look_ms = std::max<int64_t>(0, look_at_ms_ - now_ms());
  const uint32_t wait_ms = first_ || more_ ? 0 : runs_ ? until_look_ms : kFollowMs;
  const uint64_t revision = runs_ ? kNoRevision : revision_;
  auto news = session_->call<Followed>(
      [session = session_.get(), id = id_, revision, seen = seen_, wait_ms](UserSession& user) {
        return client::follow(*session, user, id, revision, seen, wait_ms);
      },
      kForever);
  if (!news.ok()) return news;
  first_ = false;
  revision_ = news->revision;
  seen_ = std::min(seen_, news->committed);  // ranks that are retried are final no more
  seen_ += news->finished.size();
  return news;
}

absl::Status JobOutput::finish(const std::vector<FinalRank>& ranks) {
  for (size_t next = 0; next < ranks.size();) {
    std::vector<BlobRef> small;
    uint64_t bytes = 0;
    size_t end = next;
    for (; end < ranks.size() && bytes < kBatchedBytes; ++end) {
      const BlobRef& output = ranks[end].output;
      if (output.empty() || !is_small(output)) continue;
      small.push_back(output);
      bytes += output.size_bytes;
    }
    auto outputs = insist([&] { return download_small(*session_, small); });
    if (!outputs.ok()) return outputs.status();
    auto output = outputs->begin();
    for (; next < end; ++next) {
      const FinalRank& rank = ranks[next];
      blob::ByteSource source;
      if (!rank.output.empty() && is_small(rank.output)) {
        source = blob::source_of(std::move(*output++));
      }
      absl::Status given = finish(rank, source);
      if (!given.ok()) return given;
    }
  }
  return absl::OkStatus();
}

// `source`: empty: its output is large, or there is none.
absl::Status JobOutput::finish(const FinalRank& rank, const blob::ByteSource& source) {
  const uint32_t number = rank.result.rank;
  again_.erase(number);
  const auto found = live_.find(number);
  Live live = found == live_.end() ? Live() : found->second;
  if (found != live_.end()) live_.erase(found);
  const auto give = [&](std::string_view bytes) {
    live.offset += bytes.size();
    return listener_.bytes(number, bytes);
  };
  if (live.attempt != 0 && rank.result.attempts > 1) {  // which of them decided is to be asked
    OutputReader reader(session_, id_, number, standard_error_, live.offset, live.attempt);
    return insist([&] {
      return reader.read([&](std::string_view bytes) { return listener_.bytes(number, bytes); },
                         [&](uint32_t before, uint32_t attempt) {
                           return listener_.restarted(number, before, attempt);
                         });
    });
  }
  if (rank.output.empty()) return absl::OkStatus();
  absl::Status given = insist([&] {
    return stream_packed(source ? source : download(session_, rank.output), standard_error_,
                         live.offset, give);
  });
  return absl::IsNotFound(given) ? absl::OkStatus() : given;
}

// At those that had more than was read; by and by at all.
absl::Status JobOutput::look() {
  absl::StatusOr<std::vector<uint32_t>> ranks = std::vector<uint32_t>(again_.begin(), again_.end());
  if (now_ms() >= look_at_all_ms_) {
    ranks = running();
    if (!ranks.ok()) return ranks.status();
    cursor_ = ranks->size() < kLookRanks ? 0 : ranks->back() + 1;
    look_at_all_ms_ = now_ms() + kLookEveryMs;
  }
  again_.clear();  // one that is not among these has its turn when the others have
  std::erase_if(*ranks, [&, now = now_ms()](uint32_t rank) {
    const auto live = live_.find(rank);
    return live != live_.end() && live->second.not_before_ms > now;
  });
  if (ranks->empty()) return absl::OkStatus();
  auto pieces = read(*ranks);
  if (!pieces.ok()) return pieces.status();
  for (const Piece& piece : *pieces) {
    if (absl::Status taken = take(piece); !taken.ok()) return taken;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> JobOutput::running() {
  return session_->call<std::vector<uint32_t>>(
      [id = id_, first = cursor_](UserSession& user) {
        auto request = user.runningRequest();
        request.setId(id.value);
        request.setFirst(first);
        request.setMax(kLookRanks);
        return request.send().then(
            [](capnp::Response<protocol::UserSession::RunningResults> response) {
              std::vector<uint32_t> ranks;
              for (uint32_t rank : response.getRanks()) ranks.push_back(rank);
              return ranks;
            });
      },
      kForever);
}

// All at once. One that cannot be read now has nothing new: whether the coordinator answers is seen
// by the other calls.
absl::StatusOr<std::vector<JobOutput::Piece>> JobOutput::read(const std::vector<uint32_t>& ranks) {
  const auto share = uint32_t(kLookBytes / std::max<size_t>(ranks.size(), 1));
  const uint32_t max_bytes = std::clamp(share, kLongestLine, kMostBytes);
  std::vector<LiveRead> reads;
  for (uint32_t rank : ranks) {
    const auto live = live_.find(rank);
    const bool known = live != live_.end();
    reads.push_back(
        {rank, known ? live->second.attempt : 0, known ? live->second.offset : 0, max_bytes});
  }
  return session_->call<std::vector<Piece>>(
      [session = session_.get(), id = id_, reads,
       stream = stream_of(standard_error_)](UserSession& user) {
        auto pieces = kj::heapArrayBuilder<kj::Promise<Piece>>(reads.size());
        for (const LiveRead& read : reads) {
          kj::Promise<Piece> silence =
              session->thread().loop().timer().afterDelay(kSilentMs * kj::MILLISECONDS).then([=] {
                return Piece{read.rank, {}, true};
              });
          pieces.add(read_live(user, id, read, stream)
                         .then(
                             [=](LiveOutput&& live) {
                               return Piece{read.rank, std::move(live), false};
                             },
                             [=](kj::Exception&&) {
                               return Piece{read.rank, {}, false};
                             })
                         .exclusiveJoin(kj::mv(silence)));
        }
        return kj::joinPromises(pieces.finish()).then([](kj::Array<Piece> all) {
          return std::vector<Piece>(std::make_move_iterator(all.begin()),
                                    std::make_move_iterator(all.end()));
        });
      },
      kForever);
}

absl::Status JobOutput::take(const Piece& piece) {
  Live& live = live_[piece.rank];
  if (piece.silent) {
    live.not_before_ms = now_ms() + kSparedMs;
    return absl::OkStatus();
  }
  if (piece.live.attempt == 0) return absl::OkStatus();
  if (piece.live.attempt != live.attempt) {
    const uint32_t before = std::exchange(live.attempt, piece.live.attempt);
    if (before != 0) {
      live.offset = 0;
      again_.insert(piece.rank);
      return listener_.restarted(piece.rank, before, live.attempt);
    }
  }
  const std::string_view bytes = piece.live.bytes;
  const bool full = bytes.size() >= kLongestLine;
  if (full) again_.insert(piece.rank);
  // Progress bars end their lines by returns alone. What ends a full piece may be half of "\r\n".
  const size_t half = full && bytes.back() == '\r' ? 1 : 0;
  size_t whole = bytes.substr(0, bytes.size() - half).find_last_of("\r\n") + 1;
  if (whole == 0) whole = bytes.size() - bytes.size() % kLongestLine;
  if (whole == 0) return absl::OkStatus();
  live.offset += whole;
  return listener_.bytes(piece.rank, bytes.substr(0, whole));
}

}  // namespace pesc::client
